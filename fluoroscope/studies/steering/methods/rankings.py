"""The frame of CorrSteer-A with another ranking: the best of every layer by something else than r.

All rank among latents with an r of the wanted sign, and take coefficients alike, so that what
differs between them is the ranking alone (as in the comparison of arXiv:2508.12535).
"""

from typing import ClassVar

from fluoroscope.features.correlation_selection import Ranking
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method
from fluoroscope.studies.steering.methods.latent_parts import best_of_every_layer, latent_plan
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.recipes import Recipe


class Ranked(Method):
    by: ClassVar[Ranking]

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        return latent_plan(best_of_every_layer(recipe, material, self.by), recipe, material)


class MutualInformation(Ranked):
    """SpARE (arXiv:2410.15999) selects by the mutual information of a latent with an outcome."""

    by = "mutual_information"
    about = "Of every layer the latent that tells most about success (as SpARE selects)."


class Fisher(Ranked):
    """DSG (arXiv:2504.08192) selects by a ratio of second moments, there of a forget set to a
    retain set, here of successes to failures.
    """

    by = "fisher"
    about = "Of every layer the latent with the largest ratio of second moments (as DSG selects)."


class LatentDifference(Ranked):
    """The difference of means in the SAE's space; not the dense one of CAA."""

    by = "mean_difference"
    about = "Of every layer the latent whose mean differs most between successes and failures."
