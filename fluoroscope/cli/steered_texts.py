"""What `fluoro steer` computes: the same prompts and seeds, without edits and with them.

Both texts of a pair are drawn by the same numbers (common random numbers), so that they are the
same up to where steering changed what was drawn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import ModelError, UserError
from fluoroscope.interventions.positions import GENERATED, LAST, Positions
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.interventions.steering import steer
from fluoroscope.interventions.vectors import load_vector
from fluoroscope.models.generation import Generation, Request, generate
from fluoroscope.models.hub import SHIPPED
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.organism.shipping import is_organism
from fluoroscope.organism.vectors import planted_vector
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.sae.latent_edits import SetLatent


class Steering(NamedTuple):
    """What is done to the model, and what it is called."""

    edits: EditSet
    positions: Positions
    name: str


class Pair(NamedTuple):
    """One prompt and seed, twice."""

    request: Request
    unsteered: Generation
    steered: Generation


def by_vector(model: LanguageModel, name: str, coefficient: float | None) -> Steering:
    """A vector's file, or `organism:risk`; `coefficient` in the place of its own."""
    folder, colon, variable = name.rpartition(":")
    is_planted = bool(colon) and (folder in SHIPPED or is_organism(Path(folder)))
    vector = planted_vector(variable, folder) if is_planted else load_vector(name)
    if coefficient is not None:
        vector = vector.with_coefficient(coefficient)
    vector.check_model(model)
    points = ", ".join(str(point) for point in sorted(vector.directions))
    unit = " of the activation's norm" if vector.is_relative else ""
    said = f"{vector.source}, {vector.coefficient:g}{unit} at {points}"
    return Steering(vector.edits(), vector.positions, said)


def by_latent(model: LanguageModel, folder: str, latent: int, value: float) -> Steering:
    """A latent set to a value, wherever a token is drawn."""
    expect = {"model": model.identity.to_json()}
    sae = load_sae(folder, device=str(model.device), expect=expect)
    sae.requires_grad_(False)
    if sae.hook_point is None:
        raise UserError(f"The SAE in {folder} does not say which hook point it is of.")
    edit = SetLatent(sae, latent, value)
    said = f"latent {latent} of the {sae.architecture} SAE set to {value:g} at {sae.hook_point}"
    return Steering({sae.hook_point: edit}, LAST | GENERATED, said)


def write_pairs(
    model: LanguageModel, steering: Steering, requests: Sequence[Request], sampling: Sampling
) -> list[Pair]:
    """The texts of every request, without edits and with them."""
    if model.family.kind != "decoder":
        raise ModelError(
            f"{model.name} is an {model.family.kind}: it writes no text to be steered."
        )
    unsteered = generate(model, requests, sampling=sampling)
    with steer(model, steering.edits, steering.positions):
        steered = generate(model, requests, sampling=sampling)
    return [Pair(*three) for three in zip(requests, unsteered, steered, strict=True)]
