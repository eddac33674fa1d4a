"""Checks the shapes and types of every signature of the package, in tests only.

`conftest.py` installs it. Hints that beartype cannot read outside a decorated class (`Self`,
names that are imported for type checkers alone) leave their function unchecked.
"""

from collections.abc import Callable
from typing import TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

F = TypeVar("F", bound=Callable[..., object])

# An int is a float where one is asked for, as it is to every static checker (PEP 484).
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: F) -> F:
    try:
        return _checked(function)
    except BeartypeDecorHintException:
        return function
