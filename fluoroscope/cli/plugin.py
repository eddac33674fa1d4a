"""`fluoro plugin`: a run of the plug-in study in a few lines."""

from typing import Annotated

import typer

from fluoroscope.cli.common import RunName, print_rows

app = typer.Typer(no_args_is_help=True, help="One layer of a large model in a small encoder.")


@app.callback()
def _plugin() -> None:
    """Makes `summary` a command of its own although it is the only one."""


@app.command()
def summary(
    run_name: RunName,
    csv: Annotated[bool, typer.Option("--csv", help="The table alone, as CSV.")] = False,
) -> None:
    """Show test accuracy and macro-F1 by data set, arm and seed, and where the files are."""
    from fluoroscope.core.errors import RunError
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.run import Run
    from fluoroscope.studies.plugin.summary import summary as table
    from fluoroscope.studies.plugin.summary import written_files

    run = Run.open(find_run(run_name))
    if run.study != "plugin":
        raise RunError(f"{run.folder} is a run of the study {run.study}, not of plugin.")
    frame = table(run)
    if frame.is_empty() and not csv:
        typer.echo("Nothing is trained yet.")
        return
    print_rows(frame, csv)
    if not csv:
        for path in written_files(run):
            typer.echo(str(path))
