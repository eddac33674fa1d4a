"""`fluoro gambling`: what can be done with games that were played."""

from pathlib import Path
from typing import Annotated

import typer

from fluoroscope.cli.common import RunName, print_rows

app = typer.Typer(no_args_is_help=True, help="Read the replies of games again, or export them.")


@app.command()
def reparse(
    run_name: RunName,
    min_confidence: Annotated[
        float | None, typer.Option(help="Confidence that a reading needs; default: as played.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print every reply as csv.")] = False,
) -> None:
    """Read every reply again by the grammar of this version; no model is needed.

    The run is left as it is. A game cannot be played again from its replies: what would have been
    done otherwise is counted, and what comes after it is not known.
    """
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.run import Run
    from fluoroscope.studies.gambling.reparse import agreement, reread
    from fluoroscope.studies.gambling.steps.play import read_attempts

    run = Run.open(find_run(run_name), "cpu")
    found = reread(run.config, read_attempts(run), min_confidence)
    print_rows(found if csv else agreement(found), csv)


@app.command()
def export(
    run_name: RunName,
    out: Annotated[Path, typer.Option(help="Folder that the files are written to.")],
) -> None:
    """Write games, latents, patches, words and pathway in the forms of the seed's own files."""
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.run import Run
    from fluoroscope.studies.gambling.export import export_run

    for path in export_run(Run.open(find_run(run_name), "cpu"), out):
        typer.echo(path)
