"""How a model is fine-tuned, said in settings; this module is free of torch."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config

Objective = Literal["difference", "uniform", "ordinary"]
"""Ascent on what is to be forgotten and descent on what is to be kept; towards replies that are
all as likely, and descent; descent on what is given, as in any training."""


class FineTuningConfig(Config):
    """Small and plain: AdamW at one rate."""

    objective: Objective = "difference"
    """`difference` (gradient difference), `uniform` (forget by answering evenly), or `ordinary`."""

    n_iterations: PositiveInt = 200
    batch_size: PositiveInt = 16
    """Passages of each side in an iteration."""

    learning_rate: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 0.0
    retain_weight: NonNegativeFloat = 1.0
    """Of the loss on what is to be kept, against that on what is to be forgotten."""

    validate_every: PositiveInt = 10
    """Iterations between two looks at the validation samples."""

    patience: PositiveInt = 5
    """Looks without a better one after which training stops."""

    largest_gradient: PositiveFloat = Field(default=1.0)
    """Norm to which a longer gradient is cut: ascent has no bottom."""

    seed: int = 0
    """Of which passages are in which batch."""
