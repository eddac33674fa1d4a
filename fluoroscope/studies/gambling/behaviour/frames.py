"""What all tables of behaviour do with frames: ask for columns, know factors, split into groups.

Arms are never pooled. Rows are sorted before anything is summed, so that a table does not depend
on the order in which games were played or read.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Int

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import Interval
from fluoroscope.studies.gambling.logs import GAMES_SCHEMA

GAME = ["arm", "game"]
"""Names a game: arms that play with the same luck share the keys of their games."""

_ORDER = ["arm", "condition", "repetition", "game"]


def need(frame: pl.DataFrame, columns: Collection[str], what: str) -> None:
    """Raises `ConfigError` for columns that are not there."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ConfigError(
            f"{what} needs the columns {', '.join(missing)}; there are: {', '.join(frame.columns)}."
        )


def factors_of(metrics: pl.DataFrame) -> list[str]:
    """The columns that say what a condition consists of: all text that not every game has."""
    is_text = [dtype == pl.String for dtype in metrics.dtypes]
    return [
        name
        for name, text in zip(metrics.columns, is_text, strict=True)
        if text and name not in GAMES_SCHEMA
    ]


def groups(
    metrics: pl.DataFrame, by: Sequence[str], what: str
) -> Iterator[tuple[dict[str, object], pl.DataFrame]]:
    """The games of each arm and level of `by`, in the order of those, sorted within."""
    keys = list(dict.fromkeys(["arm", *by]))
    need(metrics, [*keys, *_ORDER], what)
    ordered = metrics.sort([*keys, *(name for name in _ORDER if name not in keys)])
    for part in ordered.partition_by(keys, maintain_order=True):
        yield part.select(keys).row(0, named=True), part


def numbers(column: pl.Series) -> Int[np.ndarray, " n"]:
    """A number for each different value, in the order of values."""
    return column.rank("dense").to_numpy().astype(np.int64)


def interval_columns(found: Mapping[str, Interval]) -> dict[str, object]:
    """An estimate as name, name_low and name_high."""
    return {
        column: number
        for name, interval in found.items()
        for column, number in zip(interval_schema(name), interval, strict=True)
    }


def interval_schema(*names: str) -> dict[str, type[pl.DataType]]:
    """Of the columns of `interval_columns`."""
    return {
        column: pl.Float64 for name in names for column in (name, f"{name}_low", f"{name}_high")
    }
