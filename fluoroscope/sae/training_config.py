"""How SAEs are trained, said in settings; this module is free of torch."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config

Start = Literal["geometric_median", "mean", "zero"]


class TrainingConfig(Config):
    """How SAEs are trained; what each SAE is stands in its own config."""

    batch_size: PositiveInt = 1024
    """Activations per step."""

    learning_rate: PositiveFloat | None = None
    """Adam's peak rate; null for one by the model's width and the number of steps, which is near
    the best wherever it was tried (docs/decisions/the-learning-rate.md)."""

    warmup: NonNegativeFloat = 0.02
    """Share of the steps over which the rate rises from zero."""

    decay: NonNegativeFloat = 0.3
    """Share of the steps, at the end, over which it falls linearly to zero."""

    auxk_coefficient: NonNegativeFloat = 1 / 32
    """Weight of the loss that makes dead latents explain what the live ones leave, as a fraction
    of that."""

    auxk: PositiveInt | None = None
    """Dead latents a row may use for it; null for d_model / 2, rounded up to at least 1."""

    auxk_every: PositiveInt = 8
    """AuxK looks at every so many-th row: it is the dearest part of a step while many latents are
    dead, and fvu and dead latents were the same to 1 % with an eighth of the rows."""

    dead_after: PositiveInt | None = None
    """A latent that was silent for this many samples is dead; null for the smaller of 10
    million and a twentieth of the training."""

    validate_every: PositiveInt | None = None
    """Steps between two validations, which choose the best weights; null for a fortieth of the
    training."""

    start: Start = "geometric_median"
    """Where `b_dec` begins: at the geometric median of some activations, at their mean, or at 0."""

    buffer_rows: PositiveInt = 65536
    """Activations of each hook point that are held in memory to be shuffled."""
