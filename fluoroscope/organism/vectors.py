"""The organism's planted directions as steering vectors."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.vectors import SteeringVector
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.organism.check import draw_pairs
from fluoroscope.organism.decisions import decision_streams
from fluoroscope.organism.network import PLANTED_LAYER
from fluoroscope.organism.prompts import VARIABLES, Variable
from fluoroscope.organism.shipping import load_truth
from fluoroscope.organism.truth import Truth

COEFFICIENT = 30.0
"""The directions are unit vectors, and this is how far the world's prompts are apart along them:
the standard deviation is 14 for bias, 20 for risk, 28 for known and 45 for sentiment."""


N_PROMPTS = 64
"""Prompts by which a direction is turned towards more of its variable."""


def planted_vector(variable: str, folder: Path | str = "organism") -> SteeringVector:
    """The unit direction that carries a variable, to be added from the decision on.

    A positive coefficient means more of the variable: more risk, better known, and so on.
    """
    if variable not in VARIABLES:
        raise ConfigError(
            f"A planted variable is one of {', '.join(VARIABLES)}, got {variable!r}."
            f"{nearest(variable, list(VARIABLES))}"
        )
    # A path is never the name of something shipped; see `load_truth`.
    name = folder if isinstance(folder, str) else str(folder.expanduser().resolve())
    truth = load_truth(folder)
    return SteeringVector(
        directions={HookPoint(PLANTED_LAYER, "resid_post"): _turned(truth, variable)},
        coefficient=COEFFICIENT,
        positions=LAST | GENERATED,
        source=f"planted direction of {variable}",
        model=LanguageModel.load(name).identity.to_json(),
        provenance={"method": "planted_vector", "variable": variable},
    )


def _turned(truth: Truth, variable: Variable) -> Float[Tensor, " d_model"]:
    # Which of the two signs carries more of the variable is up to training.
    direction = truth.planted(variable).write[0]
    prompts = [base for base, _ in draw_pairs(truth.world, variable, N_PROMPTS, "direction")]
    component = decision_streams(truth.readout, prompts)[PLANTED_LAYER] @ direction
    values = torch.tensor([prompt.value for prompt in prompts])
    is_turned = float((component * (values - values.mean())).sum()) < 0
    return -direction if is_turned else direction.clone()
