"""A study's settings for `--help`, read off its spec: nothing is written twice."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from fluoroscope.core.config import Config


@dataclass(frozen=True)
class Setting:
    key: str
    kind: str
    default: str
    doc: str
    is_how: bool


def settings_text(title: str, kind: type[Config]) -> Group:
    """Every setting with its type, default and meaning, for a terminal of any width."""
    note = "  key=value, nested keys with dots; * may change when a run is continued"
    lines: list[RenderableType] = [Text.assemble((f"Settings of {title}", "bold"), note, "\n")]
    for setting in list_settings(kind):
        star = "*" if setting.is_how else ""
        head = (f"{setting.key}{star}", "bold cyan")
        lines.append(Text.assemble(head, "  ", (setting.kind, "dim"), setting.default))
        lines.append(Padding(Text(setting.doc), (0, 0, 0, 4)))
    return Group(*lines)


def list_settings(
    kind: type[Config], prefix: str = "", inside_how: bool = False, default: Config | None = None
) -> Iterator[Setting]:
    """Every setting by its dotted key; nested configurations are spelled out.

    `default` is what `kind` is where nothing is said of it, if that is not its own default.
    """
    for name, field in kind.model_fields.items():
        extra = field.json_schema_extra
        is_how = inside_how or (isinstance(extra, Mapping) and bool(extra.get("how")))
        given = _default(field) if default is None else getattr(default, name)
        parts = [part for part in _parts(field.annotation) if part is not type(None)]
        nested = [part for part in parts if _is_config(part)]
        if nested and len(nested) == len(parts):
            may_be_none = "may be none" if type(None) in _parts(field.annotation) else ""
            doc = field.description or (nested[0].__doc__ if len(nested) == 1 else "")
            if doc:
                yield Setting(f"{prefix}{name}.", may_be_none, "", _one_line(doc), is_how)
            for part in nested:
                own = given if isinstance(given, part) else None
                yield from list_settings(part, f"{prefix}{name}.", is_how, own)
            continue
        yield Setting(
            prefix + name,
            type_text(field.annotation),
            _default_text(given),
            _one_line(field.description or ""),
            is_how,
        )


def _one_line(doc: str) -> str:
    return " ".join(inspect.cleandoc(doc).split())


def type_text(annotation: Any) -> str:  # Any: whatever stands after a field's colon.
    """`int | None`, `"a" | "b"`, as a user would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if len(_parts(annotation)) > 1:
        return " | ".join(type_text(part) for part in _parts(annotation))
    if origin is not None:
        inside = ", ".join("..." if one is Ellipsis else type_text(one) for one in arguments)
        return f"{origin.__name__}[{inside}]"
    if annotation is type(None):
        return "none"
    return getattr(annotation, "__name__", str(annotation))


def _parts(annotation: Any) -> tuple[Any, ...]:  # Any: see `type_text`.
    is_union = get_origin(annotation) in (Union, type(int | str))
    return get_args(annotation) if is_union else (annotation,)


def _is_config(annotation: Any) -> bool:  # Any: see `type_text`.
    return isinstance(annotation, type) and issubclass(annotation, Config)


def _default(field: FieldInfo) -> Any:  # Any: of the field's type.
    if field.is_required():
        return PydanticUndefined
    return field.get_default(call_default_factory=not field.default_factory_takes_validated_data)


def _default_text(default: Any) -> str:  # Any: see `_default`.
    if default is PydanticUndefined:
        return "  needed"
    return f" = {'none' if default is None else default}"
