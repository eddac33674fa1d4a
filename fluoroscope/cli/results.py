"""What becomes of results: `fluoro compare` sets runs beside each other, `fluoro export` is for
papers.
"""

from pathlib import Path
from typing import Annotated

import typer

from fluoroscope.cli.common import RunName, print_frame

app = typer.Typer()

RunNames = Annotated[
    list[str], typer.Argument(metavar="RUN RUN...", help="Names of runs, or their folders.")
]


@app.command()
def compare(
    runs: RunNames,
    to: Annotated[
        Path | None, typer.Option(help="A folder for report.html, tables and figures of it.")
    ] = None,
) -> None:
    """Runs of one study: the settings in which they differ, and how their results do."""
    from fluoroscope.runs.compare import Comparison, write_comparison
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.record import load_class, read_record

    folders = [find_run(name) for name in runs]
    report = Comparison(folders)
    load_class(read_record(folders[0]).study_class)().compare(folders, report)
    if to is not None:
        write_comparison(report, folders, to)
    for part in report.shown:
        if isinstance(part, str):
            typer.echo(f"\n{part}\n")
        else:
            print_frame(part[1], part[0], more="--to DIR writes them all")
    if to is not None:
        typer.echo(f"Done: {to / 'report.html'}")


@app.command()
def export(
    run: RunName,
    to: Annotated[Path, typer.Option(help="A folder that is new, empty, or an earlier export.")],
) -> None:
    """A finished run for a paper: LaTeX tables, figures, numbers as macros, where from."""
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.paper.export import export_run

    found = export_run(find_run(run), to)
    typer.echo(
        f"Tables: {found.n_tables}; figures: {found.n_figures}; numbers as macros: "
        f"{found.n_macros}, and {found.n_refused} have none, for they have no interval "
        f"({to / 'refused.csv'})."
    )
    typer.echo(f"Done: {to / 'paper.tex'}")
