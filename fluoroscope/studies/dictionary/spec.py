"""What a user says of a dictionary run; this module is free of torch."""

from pydantic import NonNegativeInt, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.steps.sae_training_spec import SAETrainingSpec


class _OfAModel(Config):
    # A base of its own, so that help names the model first.
    model: ModelSpec
    """The model to read; `model=gpt2` is short for `model.source=gpt2`."""


class DictionarySpec(SAETrainingSpec, _OfAModel):
    """`fluoro run dictionary`: extract activations, train SAEs of every layer, judge them."""

    seed: NonNegativeInt = 0
    """Seed of the order of the activations and of the intervals' resampling."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""
