"""`fluoro hallucination`: a generation with its running score, and a run in the seed's files."""

from pathlib import Path
from typing import Annotated

import typer

from fluoroscope.cli.common import RunName

app = typer.Typer(no_args_is_help=True, help="Watch a model make something up.")


@app.command()
def watch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or organism.")],
    run_name: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Whose detector scores the tokens; default: the latest of this model.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What to answer; may be repeated. Default: questions of the run."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens to write; default: as in the run.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 takes the likeliest token; default: as in the run."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; default: as in the run.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a token.")] = False,
) -> None:
    """Write an answer, and show after each token how likely it is made up.

    The score is of a hallucination run of this model, which has learnt it from its answers.
    """
    from fluoroscope.cli.watching import Wanted, watch_prompts

    wanted = Wanted(prompt or (), max_tokens, temperature, seed, as_json)
    watch_prompts(model, run_name, device, wanted)


@app.command()
def export(
    run_name: RunName,
    out: Annotated[Path, typer.Option(help="Folder that the files are written to.")],
) -> None:
    """Write tracks, clusters, scores, figures and SAEs in the forms of the seed's own files.

    A run that is only partly done gives what there is; what is missing is said.
    """
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.run import Run
    from fluoroscope.studies.hallucination.export import export_run, missing_files

    run = Run.open(find_run(run_name), "cpu")
    for path in export_run(run, out):
        typer.echo(path)
    for name, why in missing_files(run).items():
        typer.echo(f"Not written: {name}, as {why}.", err=True)
