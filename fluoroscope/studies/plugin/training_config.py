"""How a classifier is trained; this module is free of torch."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.models.training.precision import Precision


class OptimiserConfig(Config):
    """What turns gradients into steps; the defaults are those of the preset `plugin/sound`."""

    name: Literal["adam", "adamw", "sgd", "adadelta"] = "adamw"

    learning_rate: PositiveFloat = 5e-5
    """Of the encoder, at its peak."""

    new_learning_rate: PositiveFloat | None = 3e-4
    """Of what is not pretrained: the maps into and out of the layer, and the head; as
    `learning_rate` where null."""

    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices; biases and norms have none."""

    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """What follows warm-up: nothing, or a way down to 0."""

    warmup_share: float = Field(default=0.06, ge=0, lt=1)
    """Of all steps, in which rates rise from 0."""

    clip: PositiveFloat | None = 1.0
    """The largest norm of all gradients together."""


class TrainingConfig(Config):
    """One training; epochs are set above it, with `epochs=3`."""

    optimiser: OptimiserConfig = OptimiserConfig()

    batch_size: PositiveInt = 32

    max_length: PositiveInt = 128
    """Tokens of a text (of both texts of a pair together); the rest is cut off."""

    padding: Literal["buckets", "longest", "max_length"] = "buckets"
    """`buckets`: batches of texts of about one length, padded to their longest; `longest`: batches
    of any texts, padded so; `max_length`: every text to `max_length`, as the plan's code does."""

    drop_last: bool = False
    """Whether the last, smaller batch of an epoch is left out."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """In the training loss alone; reported losses are without."""

    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In the head; the encoder has its own."""

    patience: NonNegativeInt | None = 2
    """Epochs without a better validation side after which training ends; null never ends it."""

    choose_by: Literal["accuracy", "macro_f1", "mcc", "loss"] = "accuracy"
    """Of the validation side, for the best epoch."""

    precision: Precision = "auto"
    """Of the forward pass; `auto` is bfloat16 where a GPU is, else float32, and is written down."""

    processes: PositiveInt = 1
    """Processes that share each training, a GPU each where there are GPUs (by accelerate)."""
