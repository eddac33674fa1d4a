"""Tables for a terminal: sizes and durations by the unit in a column's name."""

import json

import polars
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fluoroscope.runs.terminal import duration, size

_STYLES = {
    "done": "green",
    "safe": "green",
    "ok": "green",
    "working": "cyan",
    "tight": "yellow",
    "warning": "yellow",
    "does not fit": "red",
    "failed": "red",
    "problem": "red",
}


def flat(frame: polars.DataFrame) -> polars.DataFrame:
    """The frame with nested values as JSON text, which csv can hold."""
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    return frame.with_columns(
        polars.Series(name, [json.dumps(value) for value in frame[name].to_list()])
        for name in nested
    )


def frame_table(frame: polars.DataFrame, title: str | None = None) -> Table:
    """A polars frame as a rich table; `..._bytes` and `..._s` columns are said in words."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, kind in frame.schema.items():
        heading = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
        table.add_column(heading, justify="right" if kind.is_numeric() else "left")
    for row in frame.iter_rows(named=True):
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: object) -> Text:
    text = cell_text(name, value)
    return Text(text, style=_STYLES.get(text, ""))


def cell_text(name: str, value: object) -> str:
    """`("disk_bytes", 1.5e9)` -> `1.5 GB`."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() | float() if name.endswith("_bytes"):
            return size(value)
        case int() | float() if name == "seconds" or name.endswith("_s"):
            return duration(value)
        case float():
            return f"{value:.4g}"
    return str(value)
