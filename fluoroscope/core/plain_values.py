"""What a text means as a setting: YAML 1.2's plain values and nothing cleverer.

PyYAML follows YAML 1.1, where `no` is false, `010` is eight, `12:30` is 750, and `2e6` is a
text; a setting that is silently something else is the worst kind of mistake.
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")


def number(text: str) -> int | float:
    """`2e6` is the whole number, so that it can be a count; 2.5e-1 and 1.0 are not whole."""
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    value = float(text)
    return int(value) if "e" in text.lower() and value.is_integer() else value


def load_yaml(text: str) -> Any:  # Any: nested plain values.
    """Raises `yaml.YAMLError` where `text` is not YAML, or gives a key twice."""
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own; none of its guesses are kept.

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        return number(str(self.construct_scalar(node)))


_YAML = "tag:yaml.org,2002:"
_Loader.add_implicit_resolver("!number", NUMBER, list("+-.0123456789"))
_Loader.add_implicit_resolver(f"{_YAML}bool", re.compile(r"(?i:true|false)\Z"), list("tTfF"))
_Loader.add_implicit_resolver(
    f"{_YAML}null", re.compile(r"(?i:null)\Z|~\Z|\Z"), ["n", "N", "~", ""]
)
_Loader.add_implicit_resolver(f"{_YAML}merge", re.compile(r"<<\Z"), ["<"])
_Loader.add_constructor("!number", _Loader.construct_number)


def with_nan(value: Any) -> Any:  # Any: see `without_nan`.
    """With NaN for every null: the way back from `without_nan`."""
    if isinstance(value, dict):
        return {key: with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value


def without_nan(value: Any) -> Any:  # Any: nested JSON values, where null is "cannot be told".
    """With null for every number that is none, and for infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
