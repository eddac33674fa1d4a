"""A sweep as it is worked on: the spec with what only models, SAEs and files know."""

from fluoroscope.core.config import Config
from fluoroscope.models.shape import ModelShape
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sweep_config import SweepConfig


class PatchConfig(Config):
    """A `PatchSpec` with everything filled in."""

    model: ModelConfig
    shape: ModelShape
    sweep: SweepConfig
    outcomes: dict[str, str]
    seed: int
    threads: int
