"""Which columns of a table are estimates with an interval, and which say what a row is of.

An interval stands in two columns beside its estimate, and names tell whose it is:
- `x`, `x_low`, `x_high`;
- `low`, `high`: of the column of numbers just before `low`, as in `effect, low, high`;
- `x_low`, `x_high` without a column `x`: of the column just before `x_low`, where its name ends
  in `_x`, as in `cohen_d, d_low, d_high`.
A row is named by its texts, from the left, and by whole numbers where texts do not tell rows
apart; not by counts (`n`, `n_...`), fractions, or what is yes or no.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars

P_VALUES = ("p", "q", "p_holm")
"""Columns whose numbers say themselves how unsure something is."""


class Estimate(NamedTuple):
    """Names of three columns."""

    value: str
    low: str
    high: str


def read_table(path: Path) -> polars.DataFrame:
    """A table as a report wrote it."""
    return polars.read_csv(path, infer_schema_length=None)


def estimates(frame: polars.DataFrame) -> list[Estimate]:
    """The estimates of a table that have an interval, in the order of their columns."""
    names, found = frame.columns, list[Estimate]()
    for place, low in enumerate(names):
        stem = low.removesuffix("low")
        if stem == low or stem + "high" not in names or (stem and stem[-1] not in "_ "):
            continue
        value = _owner(names, place, stem[:-1])
        columns = Estimate(value or "", low, stem + "high")
        if value is not None and all(_is_number(frame[name]) for name in columns):
            found.append(columns)
    return found


def plain_numbers(frame: polars.DataFrame) -> list[str]:
    """Columns of fractions that have no interval and are none."""
    taken = {name for found in estimates(frame) for name in found}
    floats = [name for name in frame.columns if frame[name].dtype.is_float()]
    return [name for name in floats if name not in taken]


def row_key(frames: Sequence[polars.DataFrame]) -> list[str]:
    """The columns that name rows in each of `frames`; none where these do not tell rows apart."""
    first, *others = frames
    shared = [name for name in first.columns if all(name in frame.columns for frame in others)]
    key = list[str]()
    candidates = [name for name in shared if all(_is_text(frame[name]) for frame in frames)]
    candidates += [name for name in shared if all(_is_index(frame[name]) for frame in frames)]
    for name in candidates:
        key.append(name)
        if all(frame.select(key).is_unique().all() for frame in frames):
            return [name for name in first.columns if name in key]
    return []


def _owner(names: Sequence[str], place: int, stem: str) -> str | None:
    if stem in names:
        return stem
    before = names[place - 1] if place else ""
    is_its = before and (not stem or before.endswith(f"_{stem}"))
    return before if is_its else None


def _is_number(column: polars.Series) -> bool:
    # A column without any value is read as one of texts.
    return column.dtype.is_numeric() or column.null_count() == len(column)


def _is_text(column: polars.Series) -> bool:
    return column.dtype == polars.String and column.null_count() < len(column)


def _is_index(column: polars.Series) -> bool:
    return column.dtype.is_integer() and not re.fullmatch(r"n(_.*)?", column.name)
