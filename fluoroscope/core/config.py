"""Settings: closed, frozen, documented once, and built from files, presets and `key=value`.

A `Config` lives with the thing it configures. The string under a field is the reader's
comment, the help text and the schema. Unknown keys are refused, with the nearest name.

A run's settings have two halves: WHAT decides results and is hashed; HOW (declared with
`how(...)`) does not, and may change when a run is continued.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest

Settings = dict[str, Any]  # Any: what JSON can hold, nested.
C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def how(default: Any) -> Any:  # Any: as pydantic's own Field, which it wraps.
    """A field that decides how work is done, not what comes out; it is not hashed."""
    return Field(default, json_schema_extra={"how": True})


def what_half(config: Config) -> Settings:
    """The settings that decide results, as JSON values; HOW fields are left out."""
    values: Settings = {}
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, Mapping) and extra.get("how"):
            continue
        value = getattr(config, name)
        values[name] = what_half(value) if isinstance(value, Config) else _plain(config, name)
    for name in config.model_extra or {}:
        values[name] = _plain(config, name)
    return values


def _plain(config: Config, name: str) -> Any:  # Any: one JSON value.
    return config.model_dump(mode="json", include={name})[name]


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces; what hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def settings_hash(settings: object) -> str:
    """SHA-256 of the canonical JSON of `settings`."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()


def parse_value(text: str) -> Any:  # Any: one JSON value.
    """`2e6` -> 2000000, `0.1` -> 0.1, `true`, `null`, `[1, 2]`, and everything else as text."""
    stripped = text.strip()
    if re.fullmatch(r"[+-]?\d+", stripped):
        return int(stripped)
    try:
        number = float(stripped)
    except ValueError:
        pass
    else:
        # `2e6` means the whole number, so that n_tokens=2e6 is a count; 0.5 and inf are not.
        scientific = re.search(r"[eE]", stripped) is not None
        return int(number) if scientific and number.is_integer() else number
    if stripped[:1] in "[{":
        return _parse_collection(stripped)
    return {"true": True, "false": False, "null": None, "none": None}.get(stripped.lower(), text)


def _parse_collection(text: str) -> Any:  # Any: a JSON list or object.
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is neither a list like [1,2] nor text: {error}") from None
    if isinstance(parsed, list):
        return [parse_value(item) if isinstance(item, str) else item for item in parsed]
    return parsed


def parse_overrides(arguments: Iterable[str]) -> Settings:
    """`["sae.k=16", "n_tokens=2e6"]` -> `{"sae": {"k": 16}, "n_tokens": 2000000}`."""
    settings: Settings = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"Settings are given as key=value, got {argument!r}.")
        parts = key.strip().split(".")
        nested: Settings = parse_value(text)
        for part in reversed(parts):
            nested = {part: nested}
        settings = merge_settings(settings, nested)
    return settings


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """`base` with every value of `over` laid over it, nested mappings merged."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge_settings(below, value) if both else value
    return merged


def read_settings(path: Path) -> Settings:
    """A YAML (or JSON) file of settings; scientific numbers such as 2e6 are numbers."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no settings file {path}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a YAML file of settings: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got {type(loaded).__name__}.")
    return _numbers(loaded)


def _numbers(value: Any) -> Any:  # Any: nested JSON values.
    # YAML 1.1 reads 2e6 as text.
    if isinstance(value, dict):
        return {str(key): _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value)
    return parse_value(value) if is_number else value


def build(kind: type[C], settings: Mapping[str, Any]) -> C:
    """A checked `kind` of `settings`; a bad key or value is named, with what to do."""
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        lines = [_explain(kind, dict(item)) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(kind: type[Config], problem: Mapping[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        names = _field_names(kind, location[:-1])
        prefix = ".".join(location[:-1])
        hint = nearest(location[-1], names)
        return (
            f"Setting {key!r} does not exist.{hint} "
            f"{prefix or kind.__name__} has: {', '.join(names)}."
        )
    if problem["type"] == "missing":
        return f"Setting {key!r} is needed: give {key}=VALUE."
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"Setting {key!r}: {message} (got {problem['input']!r})." if key else message


def _field_names(kind: type[Config], location: list[str]) -> list[str]:
    fields = kind.model_fields
    for part in location:
        inner = fields[part].annotation if part in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return sorted(fields)
        fields = inner.model_fields
    return sorted(fields)
