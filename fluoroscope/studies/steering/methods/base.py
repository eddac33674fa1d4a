"""Method: makes a plan of a recipe from what was collected, and never sees the test side.

Axes: n training samples.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import Registry
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.recipes import Recipe


class Method(ABC):
    """One way to find what to steer with; it has no state of its own."""

    needs_validation: ClassVar[bool] = False
    """Whether it may try things on the validation side."""

    reads_latents: ClassVar[bool] = True
    """Whether it looks at latents; else at activations, or at nothing."""

    about: ClassVar[str]
    """What it does, in a line of the report."""

    @abstractmethod
    def plan(self, recipe: Recipe, material: Material) -> Plan: ...


_HOME = "fluoroscope.studies.steering.methods"

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "corrsteer-s": f"{_HOME}.corrsteer:CorrSteerS",
        "corrsteer-a": f"{_HOME}.corrsteer:CorrSteerA",
        "corrsteer-p": f"{_HOME}.corrsteer:CorrSteerP",
        "corrsteer-sequential": f"{_HOME}.sequential:CorrSteerSequential",
        "corrsteer-greedy": f"{_HOME}.corrsteer:CorrSteerGreedy",
        "mutual-information": f"{_HOME}.rankings:MutualInformation",
        "fisher": f"{_HOME}.rankings:Fisher",
        "latent-difference": f"{_HOME}.rankings:LatentDifference",
        "output-score": f"{_HOME}.output_score:OutputScore",
        "caa": f"{_HOME}.dense:CAA",
        "probe": f"{_HOME}.dense:Probe",
        "pca": f"{_HOME}.dense:PCA",
        "random-latents": f"{_HOME}.random:RandomLatents",
        "random-direction": f"{_HOME}.random:RandomDirections",
        "prompt-only": f"{_HOME}.prompt:PromptOnly",
        "planted": f"{_HOME}.planted:Planted",
    },
)


def make_plan(recipe: Recipe, material: Material) -> Plan:
    """By the method that the recipe names."""
    return METHODS.load(recipe.method)().plan(recipe, material)


def points_of(recipe: Recipe, material: Material) -> list[HookPoint]:
    """Hook points that the recipe may use, in the order of the network."""
    known = material.points
    if recipe.layers is None:
        return known
    wanted = {HookPoint(name) for name in recipe.layers}
    if not wanted:
        raise ConfigError(f"layers of {recipe.name} is empty: name one at least, or leave it out.")
    missing = sorted(wanted - set(known))
    if missing:
        raise ConfigError(
            f"{recipe.name} asks for {', '.join(map(str, missing))}, and latents were collected at "
            f"{', '.join(map(str, known))}. Take some of these, or collect at those as well."
        )
    return [point for point in known if point in wanted]


def successes(recipe: Recipe, material: Material) -> Bool[np.ndarray, " n"]:
    """Which training samples are successes; some must be, and some not."""
    is_success = material.outcomes(recipe.samples) >= material.threshold
    if is_success.all() or not is_success.any():
        lacking = "failure" if is_success.all() else "success"
        raise ConfigError(
            f"{recipe.name} compares successes with failures, and of {len(is_success)} training "
            f"samples none is a {lacking} (a score from {material.threshold:g} on is a success). "
            "Take more samples, another threshold, or a task that is solved now and then."
        )
    return is_success
