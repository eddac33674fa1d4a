"""What several commands share: arguments, and tables on a terminal or in a pipe."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    import polars

MAX_ROWS = 100
"""Rows of a table that are shown in a terminal."""

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="key=value...", help="Settings of the study.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or its folder.")]


def print_rows(frame: "polars.DataFrame", csv: bool) -> None:
    """All rows for a program, or as many as a person reads."""
    if csv:
        from fluoroscope.runs.tables import flat

        typer.echo(flat(frame).write_csv(), nl=False)
        return
    print_frame(frame, more="--csv prints them all")


def print_frame(
    frame: "polars.DataFrame", title: str | None = None, more: str = "the file has them all"
) -> None:
    """The first rows, and how many more there are."""
    from fluoroscope.runs.tables import frame_table

    # A pipe has no width, and must not cut what a program reads.
    console = Console(width=None if sys.stdout.isatty() else 250)
    console.print(frame_table(frame.head(MAX_ROWS), title))
    if frame.height > MAX_ROWS:
        typer.echo(f"The first {MAX_ROWS} of {frame.height:,} rows; {more}.")
