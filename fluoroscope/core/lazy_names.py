"""Names of a package that are imported when they are first used (PEP 562)."""

import importlib
from collections.abc import Callable, Mapping


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__`, from where each of its names lives."""

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"{package} has no {name!r}; it has {', '.join(sorted(homes))}.")
        return getattr(importlib.import_module(homes[name]), name)

    return load
