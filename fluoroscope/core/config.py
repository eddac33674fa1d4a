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
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.plain_values import NUMBER, load_yaml, number
from fluoroscope.core.registry import nearest

Settings = dict[str, Any]  # Any: what JSON can hold, nested.
C = TypeVar("C", bound="Config")


BARE = ""
"""The key of a bare value, until its Config says which setting it is."""


class Config(BaseModel):
    """Base of every configuration: unknown keys are errors, values never change."""

    bare: ClassVar[str | None] = None
    """The setting that a bare text or list stands for: `model=gpt2` is `model.source=gpt2`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        # No setting means anything when it is infinite, and JSON cannot say it.
        allow_inf_nan=False,
        # revision=1234567 looks like a number, and is a text all the same.
        coerce_numbers_to_str=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_is_named(cls, value: Any) -> Any:  # Any: pydantic's raw input.
        if cls.bare is None:
            return value
        if isinstance(value, str | list):
            return {cls.bare: value}
        if not isinstance(value, Mapping) or BARE not in value:
            return value
        # Of the bare value and the named one that which was said last.
        last = [key for key in value if key in (BARE, cls.bare)][-1]
        others = {key: one for key, one in value.items() if key not in (BARE, cls.bare)}
        return {cls.bare: value[last], **others}


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
        values[name] = _what_value(value, _plain(config, name))
    for name in config.model_extra or {}:
        values[name] = _plain(config, name)
    return values


def _what_value(value: object, plain: Any) -> Any:  # Any: one JSON value.
    # Configs may stand in a list or a mapping; their HOW fields are left out there as well.
    match value:
        case Config():
            return what_half(value)
        case list() | tuple():
            return [_what_value(item, plain[i]) for i, item in enumerate(value)]
        case Mapping():
            pairs = zip(value.values(), plain.items(), strict=True)
            return {key: _what_value(item, below) for item, (key, below) in pairs}
        case _:
            return plain


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
    if NUMBER.match(stripped):
        return number(stripped)
    if stripped[:1] in ("[", "{"):
        try:
            return load_yaml(stripped)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text!r} is neither a list like [1,2] nor text: {error}") from None
    return {"true": True, "false": False, "null": None, "none": None}.get(stripped.lower(), text)


def parse_overrides(arguments: Iterable[str]) -> Settings:
    """`["sae.k=16", "n_tokens=2e6"]` -> `{"sae": {"k": 16}, "n_tokens": 2000000}`."""
    settings: Settings = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"Settings are given as key=value, got {argument!r}.")
        nested: Settings = parse_value(text)
        for part in reversed(parts):
            nested = {part: nested}
        settings = merge_settings(settings, nested)
    return settings


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """`base` with every value of `over` laid over it, nested mappings merged.

    A group of settings may be given as a bare text: `corpus=FILE` goes together with
    `corpus.context=64`. What was said last stands last.
    """
    merged = dict(base)
    for key, value in over.items():
        # Beside a bare value order says which was last; elsewhere keys keep their places.
        below = merged.pop(key, None) if BARE in merged else merged.get(key)
        if isinstance(below, str | list) and isinstance(value, Mapping):
            below = {BARE: below}
        if isinstance(below, Mapping) and isinstance(value, str):
            value = {BARE: value}
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge_settings(below, value)
        merged[key] = value
    return merged


def read_settings(path: Path) -> Settings:
    """A YAML (or JSON) file of settings; scientific numbers such as 2e6 are numbers."""
    try:
        loaded = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no settings file {path}.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name a settings file in it.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a YAML file of settings: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got {type(loaded).__name__}.")
    return loaded


def build(kind: type[C], settings: Mapping[str, Any], at: str = "") -> C:
    """A checked `kind` of `settings`; a bad key or value is named, with what to do.

    `at` is where the settings stand in a larger whole, such as `sae.`, for the error's sake.
    """
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        lines = [_explain(kind, dict(item), at) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(kind: type[Config], problem: Mapping[str, Any], at: str) -> str:
    location = [str(part) for part in problem["loc"]]
    key = at + ".".join(location) if location else ""
    if problem["type"] == "extra_forbidden":
        names = _field_names(kind, location[:-1])
        prefix = ".".join(location[:-1])
        if location[-1] == BARE:
            return (
                f"Setting {key.removesuffix('.')!r} is a group, and takes no value of its own "
                f"(got {problem['input']!r}). It has: {', '.join(names)}."
            )
        hint = nearest(location[-1], names)
        return (
            f"Setting {key!r} does not exist.{hint} "
            f"{prefix or kind.__name__} has: {', '.join(names)}."
        )
    if problem["type"] == "missing":
        return f"Setting {key!r} is needed: give {key}=VALUE."
    if problem["type"] == "literal_error":
        allowed = str(problem["ctx"]["expected"])
        hint = nearest(str(problem["input"]), re.findall(r"'([^']*)'", allowed))
        return f"Setting {key!r} must be {allowed}, got {problem['input']!r}.{hint}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"Setting {key!r}: {message} (got {problem['input']!r})." if key else message


def _field_names(kind: type[Config], location: list[str]) -> list[str]:
    owners = [kind]
    for part in location:
        inner = [
            config
            for owner in owners
            if part in owner.model_fields
            for config in _configs_in(owner.model_fields[part].annotation)
        ]
        # An index of a list names no field: what it holds is known already.
        owners = inner or owners
    return sorted({name for owner in owners for name in owner.model_fields})


def _configs_in(annotation: object) -> list[type[Config]]:
    """The Config classes in `annotation`, also inside `X | None` and `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for part in get_args(annotation) for config in _configs_in(part)]
