"""Material: all that a method may look at. The test side is not among it.

Axes: n samples of the training side, v samples of the validation side, d_model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.data.tasks.samples import Sample
from fluoroscope.features.correlation_pooling import Pooling
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.studies.steering.judging import goal_of


class Material(ABC):
    """What was collected from the training side, and the validation side to try things on."""

    model: LanguageModel
    saes: Mapping[str, SparseAutoencoder]
    """Hook point -> its SAE, in the order of layers."""

    seed: int
    instruction: str
    """What the baseline that only asks puts before every prompt; empty where nobody said."""

    towards: float | None = None
    """The score that is aimed at; None where more is better."""

    within: str | None = None
    """The fact whose parts are each to come to the aim; None for the category."""

    @property
    def points(self) -> list[HookPoint]:
        return [HookPoint(name) for name in self.saes]

    @abstractmethod
    def table(self, pool: Pooling, samples: int | None = None) -> pl.DataFrame:
        """`latent_table` over all hook points, of the first samples by seed, or all."""

    @abstractmethod
    def outcomes(self, samples: int | None = None) -> Float[np.ndarray, " n"]:
        """Score of each training sample."""

    @abstractmethod
    def groups(self, samples: int | None = None) -> list[str]:
        """Group of each training sample."""

    @property
    @abstractmethod
    def threshold(self) -> float:
        """Scores from it on are successes."""

    @abstractmethod
    def dense(self, point: HookPoint, samples: int | None = None) -> Float[np.ndarray, "n d_model"]:
        """Pooled activation of each training sample."""

    @property
    @abstractmethod
    def validation(self) -> Sequence[Sample]: ...

    @abstractmethod
    def judge(self, edits: EditSet, instruction: str = "") -> Float[np.ndarray, " v"]:
        """Score of each validation sample under these edits; {} for the unsteered model."""

    def goal(self, scores: Float[np.ndarray, " v"], places: Sequence[int] | None = None) -> float:
        """What is sought, of these scores of the validation side or of some places of it."""
        taken = range(len(scores)) if places is None else places
        samples, values = self.validation, [float(scores[place]) for place in taken]
        return goal_of([samples[place] for place in taken], values, self.towards, self.within)

    @abstractmethod
    def remeasure(self, point: HookPoint, edits: EditSet, pool: Pooling) -> pl.DataFrame:
        """`latent_table` of one hook point with its latents as they are while `edits` hold."""
