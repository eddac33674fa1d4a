"""`fluoro organism`: makes and measures the model whose inside is known."""

from typing import Annotated

import typer

from fluoroscope.cli.common import Overrides, print_rows
from fluoroscope.cli.studies import execute_study
from fluoroscope.core.config import build
from fluoroscope.runs.how import How
from fluoroscope.studies.settings import study_spec

app = typer.Typer(
    no_args_is_help=True,
    help="The model that ships with Fluoroscope, whose inside is known.",
)


@app.command()
def train(
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "organism",
    checkpoint_s: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 60.0,
    check_fit: Annotated[bool, typer.Option(help="Refuse what cannot fit.")] = True,
) -> None:
    """Make the organism anew from its seed; the same command goes on after Ctrl-C or a kill."""
    how = build(How, {"checkpoint_s": checkpoint_s, "check_fit": check_fit, "devices": "cpu"})
    execute_study("organism", study_spec("organism", None, None, overrides or []), name, how)


@app.command()
def check(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER", help="An organism's folder.")
    ] = "organism",
    n: Annotated[int, typer.Option(min=64, help="Prompts of each kind.")] = 512,
    ceiling: Annotated[
        bool, typer.Option("--ceiling", help="Score planted, probed and random directions.")
    ] = False,
    saes: Annotated[
        bool, typer.Option("--saes", help="Score the best latents of the SAEs that come with it.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows as csv.")] = False,
) -> None:
    """Measure an organism against what its world says; exit code 1 where it falls short."""
    from fluoroscope.organism import recovery
    from fluoroscope.organism.check import as_frame
    from fluoroscope.organism.check import check as check_organism
    from fluoroscope.organism.shipping import load, load_truth
    from fluoroscope.organism.trials import Trials

    if ceiling:
        print_rows(recovery.ceiling(Trials(load_truth(model), n // 2)), csv)
    if saes:
        organism = load(model)
        print_rows(recovery.recovered_by(organism.saes, Trials(organism.truth, n // 2)), csv)
    if ceiling or saes:
        return
    checks = check_organism(load_truth(model), n)
    print_rows(as_frame(checks), csv)
    if not all(one.passed for one in checks):
        raise typer.Exit(1)
