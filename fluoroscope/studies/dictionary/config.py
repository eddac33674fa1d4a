"""A dictionary run as it is worked on: the spec with what only the model knows."""

from fluoroscope.models.shape import ModelShape
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_training import SAETrainingConfig


class DictionaryConfig(SAETrainingConfig):
    """A `DictionarySpec` with everything filled in that the model decides."""

    model: ModelConfig
    shape: ModelShape
    seed: int
    threads: int
