"""Names that users type, and where the thing behind each name lives.

An entry is `"name": "package.module:Attribute"`, imported when it is first asked for, so a
registry of a hundred variants costs nothing to import.
"""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from fluoroscope.core.errors import ConfigError


def nearest(name: str, names: Mapping[str, object] | list[str]) -> str:
    """` Did you mean 'topk'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


T = TypeVar("T")


class Registry(Mapping[str, str], Generic[T]):
    """A family of variants by name; `registry.load("topk")` imports and returns one."""

    def __init__(self, kind: str, homes: Mapping[str, str]) -> None:
        self.kind = kind
        self._homes = dict(homes)

    def load(self, name: str) -> T:
        module, _, attribute = self[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __getitem__(self, name: str) -> str:
        if name not in self._homes:
            raise ConfigError(
                f"{self.kind} {name!r} does not exist.{nearest(name, self._homes)} "
                f"There are: {', '.join(sorted(self._homes))}."
            )
        return self._homes[name]

    def __contains__(self, name: object) -> bool:
        # Mapping's own asks by catching KeyError, which a ConfigError is not.
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)
