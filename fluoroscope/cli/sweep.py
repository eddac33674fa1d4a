"""`fluoro sweep`: grids of patches and what their texts say; phases of a study."""

from typing import Annotated

import typer

from fluoroscope.cli.common import RunName, print_rows
from fluoroscope.cli.studies import app as studies_app

app = typer.Typer(
    no_args_is_help=True, help="Many arms of one kind: patches of latents, phases of a study."
)

_PASSED_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


@app.command(context_settings=_PASSED_ON)
def patch(context: typer.Context) -> None:
    """Set each of many latents to each of some values: the same as `fluoro run patch`."""
    run = typer.main.get_command(studies_app)
    run.main(["run", "patch", *context.args], prog_name="fluoro", standalone_mode=False)


@app.command(context_settings=_PASSED_ON)
def connection(
    context: typer.Context,
    phase: Annotated[str, typer.Option(help="1, 2, 3, 4 or final: the last to do now.")] = "final",
    help_: Annotated[bool, typer.Option("--help", help="Also of `fluoro run connection`.")] = False,
) -> None:
    """Phases of the slot network's plan, each going on with the winner of the one before.

    Settings and options are those of `fluoro run connection`. A phase that is done is not done
    again: with the same --name, --phase 3 goes on where --phase 2 ended.
    """
    from fluoroscope.core.errors import ConfigError

    run = typer.main.get_command(studies_app)
    if help_:
        typer.echo(context.get_help())
        run.main(["run", "connection", "--help"], prog_name="fluoro", standalone_mode=False)
        return
    known = {"1": "phase1", "2": "phase2", "3": "phase3", "4": "phase4", "final": "final"}
    if phase not in known:
        raise ConfigError(f"--phase is one of {', '.join(known)}, got {phase!r}.")
    until = [] if phase == "final" else ["--until", known[phase]]
    words = ["run", "connection", *context.args, "sweep.is_on=true", *until]
    run.main(words, prog_name="fluoro", standalone_mode=False)


@app.command()
def effects(
    run_name: RunName,
    outcome: Annotated[
        list[str] | None, typer.Option(help="NAME=REGEX, looked for in each text; repeatable.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows as csv.")] = False,
) -> None:
    """Read the texts of a sweep again, with other outcomes; no model is needed.

    The largest differences come first; as csv, the rows are in the order of cells.
    """
    import polars as pl

    from fluoroscope.core.errors import ConfigError
    from fluoroscope.features.effects import CHANGED
    from fluoroscope.features.effects import effects as find_effects
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.run import Run
    from fluoroscope.steps.sweep import read_cells

    outcomes = {}
    for given in outcome or []:
        name, equals, pattern = given.partition("=")
        if not equals or not name:
            raise ConfigError(f"--outcome is written NAME=REGEX, got {given!r}.")
        outcomes[name] = pattern
    run = Run.open(find_run(run_name), "cpu")
    found = find_effects(read_cells(run), outcomes).fill_nan(None)
    if not csv:
        # A person reads the first rows.
        order = (pl.col("outcome") == CHANGED, -pl.col("difference").abs())
        found = found.sort(*order, maintain_order=True)
    print_rows(found, csv)
