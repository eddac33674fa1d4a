"""Settings of ILM, the seed's choice of a layer: each flag of its command line, by its own name
without `selection_`. This module is free of torch.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from fluoroscope.core.config import Config, how

ScoreMode = Literal["probe", "fisher", "silhouette", "mixed", "robust"]
Pooling = Literal["mean", "first", "last"]
PairText = Literal["newline", "sep"]


class IlmReadingConfig(Config):
    """What the large model is given to read, and what is kept of it."""

    n_samples: PositiveInt = 400
    """Texts (`--selection_samples`)."""

    split: Literal["train", "validation"] = "train"
    """The side they are drawn from; the seed's code took the test side of two data sets."""

    is_stratified: bool = True
    """Whether classes are equally frequent in the draw (`--selection_stratified`)."""

    pooling: Pooling = "mean"
    """Over the tokens of a text: all, or the first or last alone."""

    max_length: PositiveInt = 128
    """Tokens of a text; the rest is cut off."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the large model as it reads; pooling is in float32. The seed's own is float16."""

    pair_text: PairText = "newline"
    """What joins the texts of a pair: a newline, or the seed's ` [SEP] `, which is no token of a
    large model."""

    is_last_normed: bool = False
    """Whether the last layer is read after the final norm, as the seed does; no other layer is, so
    its score is then of something else."""


class IlmConfig(IlmReadingConfig):
    """How the layers are scored."""

    n_pcs: PositiveInt = 16
    """Principal components (`--selection_pcs`); of the tables alone where the style is the code's,
    of the scores where it is the manual's."""

    top_pc: PositiveInt = 5
    """Components that go along best with the label; as `n_pcs`."""

    score_mode: ScoreMode = "mixed"

    alpha: NonNegativeFloat = 0.4
    """Weight of the probe in the mixture."""

    beta: NonNegativeFloat = 0.3
    """Weight of Fisher's ratio."""

    gamma: NonNegativeFloat = 0.3
    """Weight of the silhouette."""

    depth_bias: float = Field(default=0.3, ge=0, le=1)
    """Share of its score that the last layer pays, the first one nothing; 0 is without."""

    layer_stride: PositiveInt = 1
    """Each how-many-th layer is scored, from layer 0."""

    weighs_confidence: bool = False
    """Mode `robust` alone: scores are multiplied by half of one and half of the mean probability
    of the class that is said."""

    topk_rerank: PositiveInt = how(3)
    """Changes nothing, here as in the seed: it ranks the best layers again by the same numbers."""

    patch_lambda: tuple[float, ...] = how((0.5, 1.0))
    """Changes nothing, here as in the seed: of an earlier version that took components away."""

    @model_validator(mode="after")
    def _fits(self) -> "IlmConfig":
        if self.top_pc > self.n_pcs:
            raise ValueError(f"top_pc={self.top_pc} cannot be chosen from n_pcs={self.n_pcs}.")
        if self.alpha + self.beta + self.gamma == 0:
            raise ValueError("alpha, beta and gamma are all 0, so the mixture is of nothing.")
        return self
