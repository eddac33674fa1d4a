"""Trials: parts tried on the validation side, and whether they help there.

Samples of one group lie in one of five folds. What helps is what gains in the mean over folds
more than the standard error of that gain over folds. That is a low bar, meant to drop what does
nothing or harm and not to prove anything: where a fold's gain is chance alone t > 1 at four
degrees of freedom is passed by 19 % of trials, and by more of the best of several. The test side
decides what a method is worth.

What is to gain is the goal that strengths are searched by: the mean score, or how near the parts'
means come to the aim (`judging.goal`), so that what leads past the aim is no gain.

Axes: v validation samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.model_selection import GroupKFold

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe

N_FOLDS = 5
ROUNDING = 1e-6
"""A gain up to it is none, however alike it is in all folds."""


class Gain(NamedTuple):
    """Mean over folds of what the goal rises there, and its standard error over folds."""

    value: float
    error: float

    @property
    def is_clear(self) -> bool:
        return self.value > max(self.error, ROUNDING)

    def __str__(self) -> str:
        return f"{self.value:+.3f} (standard error {self.error:.3f})"


class Trials:
    """At the recipe's strength, or 1; the unsteered model is scored once."""

    def __init__(self, recipe: Recipe, material: Material) -> None:
        self._recipe, self._material = recipe, material
        self.strength = recipe.strength or 1.0
        groups = [sample.group_id for sample in material.validation]
        n_folds = min(N_FOLDS, len(set(groups)))
        if n_folds < 2:
            raise ConfigError(
                f"{recipe.name} tries things on a validation side of two groups of samples at "
                f"least, and there are {n_folds} ({len(groups)} samples). Take more samples, or a "
                "method that needs no validation, such as corrsteer-a."
            )
        folds = GroupKFold(n_folds).split(groups, groups=groups)
        self._folds = [test.tolist() for _, test in folds]
        self.plain = material.judge({})

    def scores(self, parts: Sequence[Part]) -> Float[np.ndarray, " v"]:
        edits = Plan(self._recipe, parts).edits(self.strength, self._material.saes)
        return self._material.judge(edits)

    def best(self, tried: Sequence[Float[np.ndarray, " v"]]) -> int:
        """The place of the scores with the highest goal, of the whole validation side."""
        return int(np.argmax([self._material.goal(scores) for scores in tried]))

    def gain(
        self, scores: Float[np.ndarray, " v"], over: Float[np.ndarray, " v"] | None = None
    ) -> Gain:
        """Over the unsteered model, or over other scores."""
        over, goal = self.plain if over is None else over, self._material.goal
        gains = np.array([goal(scores, fold) - goal(over, fold) for fold in self._folds])
        error = gains.std(ddof=1) / len(gains) ** 0.5
        return Gain(float(gains.mean()), float(error))
