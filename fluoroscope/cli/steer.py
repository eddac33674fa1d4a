"""`fluoro steer`: what a model writes by itself, and what it writes when it is steered."""

import json
import sys
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError

app = typer.Typer()

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a program; lines are wrapped, never cut."""


@app.command()
def steer(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or organism.")],
    prompt: Annotated[list[str], typer.Option(help="What to continue; may be repeated.")],
    vector: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="NAME.json, NAME.gguf, or organism:VARIABLE (risk...)."),
    ] = None,
    coefficient: Annotated[
        float | None, typer.Option(help="In the place of the vector's own.")
    ] = None,
    sae: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Instead of a vector: an SAE of MODEL...")
    ] = None,
    latent: Annotated[int | None, typer.Option(help="... a latent of it...")] = None,
    value: Annotated[float | None, typer.Option(help="... and what to set it to.")] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="PROMPT, LAST, GENERATED, ALL, at(0,-1) or after(TEXT), joined by |. Default: "
            "the vector's own; LAST | GENERATED for a latent."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first trial; the next has the next.")] = 0,
    trials: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Ends a text; may be repeated.")
    ] = None,
    may_echo: Annotated[
        bool, typer.Option("--may-echo", help="Allow a stop text that the prompt begins with.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, float64.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each prompt and trial.")
    ] = False,
) -> None:
    """Write with and without steering, side by side, drawn by the same random numbers."""
    chosen = _chosen(vector, coefficient, sae, latent, value)
    from fluoroscope.cli.side_by_side import plain, print_pairs
    from fluoroscope.cli.steered_texts import by_latent, by_vector, write_pairs
    from fluoroscope.interventions.positions import Positions
    from fluoroscope.models.generation import Request
    from fluoroscope.models.language_model import LanguageModel
    from fluoroscope.models.sampling import Sampling

    sampling = build(Sampling, {"temperature": temperature, "top_p": top_p})
    given = None if positions is None else Positions.parse(positions)
    with Console(stderr=True).status(f"Reading {escape(model)}"):
        loaded = LanguageModel.load(model, dtype=dtype, device=device)
    if isinstance(chosen, str):
        steering = by_vector(loaded, chosen, coefficient)
    else:
        steering = by_latent(loaded, *chosen)
    if given is not None:
        steering = steering._replace(positions=given)
    requests = [
        Request(
            prompt=one,
            seed=seed + trial,
            max_tokens=max_tokens,
            stop=tuple(stop or ()),
            may_echo=may_echo,
        )
        for one in prompt
        for trial in range(trials)
    ]
    pairs = write_pairs(loaded, steering, requests, sampling)
    about = {"model": loaded.name, "steering": steering.name, "positions": str(steering.positions)}
    if as_json:
        for pair in pairs:
            typer.echo(json.dumps(about | plain(pair), ensure_ascii=False))
        return
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    print_pairs(console, "{model}: {steering}, {positions}".format(**about), pairs)


class _Latent(NamedTuple):
    folder: str
    latent: int
    value: float


def _chosen(
    vector: str | None,
    coefficient: float | None,
    sae: str | None,
    latent: int | None,
    value: float | None,
) -> str | _Latent:
    """A vector's file, or a latent; what was given for neither or both is refused."""
    if vector is not None and sae is None:
        if latent is not None or value is not None:
            raise ConfigError("--latent and --value go with --sae; a vector has a --coefficient.")
        return vector
    if sae is None or vector is not None:
        raise ConfigError(
            "Steer by a vector (--vector FILE) or by a latent (--sae FOLDER --latent J --value V): "
            f"give one of the two, got {'neither' if sae is None else 'both'}."
        )
    if coefficient is not None:
        raise ConfigError("--coefficient goes with --vector; a latent is set to its --value.")
    if latent is None or value is None:
        raise ConfigError("With --sae give the latent and what to set it to: --latent J --value V.")
    return _Latent(sae, latent, value)
