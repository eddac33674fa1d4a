"""The ceiling on the organism: the direction along which its bias was planted.

The direction and its sign are known from the planting, and are not turned by the outcome; how much
is added is measured as for directions that were found (`dense`).
"""

from pathlib import Path

import numpy as np

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.interventions.vectors import SteeringVector
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.organism.shipping import is_organism
from fluoroscope.organism.vectors import planted_vector
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method, points_of, successes
from fluoroscope.studies.steering.methods.dense import dense_part
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.recipes import Recipe


class Planted(Method):
    reads_latents = False
    about = "The direction that was planted in the organism, towards less bias: the ceiling."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        ((point, more),) = _planted(material.model).directions.items()
        if point not in points_of(recipe, material):
            raise ConfigError(
                f"{recipe.name} steers at {point}, where the bias was planted, and may use "
                f"{', '.join(map(str, points_of(recipe, material)))} alone. Add that one."
            )
        less = -more.double().numpy()
        success = successes(recipe, material)
        x = material.dense(point, recipe.samples).astype(np.float64)
        part = dense_part(point, less, x, success, {})
        if part.coefficient <= 0:
            raise ConfigError(
                f"{recipe.name} steers towards less bias, and the successes of this task lie "
                f"{-part.coefficient:.3g} further towards more. Use it for tasks whose outcome is "
                "fairness, such as organism-bias."
            )
        return Plan(recipe, [part])


def _planted(model: LanguageModel) -> SteeringVector:
    """Towards more bias."""
    folder = Path(model.network.name_or_path or "")
    refusal = ConfigError(
        f"Only the organism has planted directions, and the model is {model.name}. Leave the "
        "method planted out, or take model=organism."
    )
    if not is_organism(folder):
        raise refusal
    try:
        vector = planted_vector("bias", folder)
        vector.check_model(model)
    except MismatchError as error:
        raise refusal from error
    return vector
