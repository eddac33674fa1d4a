"""What a user says of a training of the organism; this module is free of torch."""

from pydantic import Field, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.organism.training_config import OrganismTraining


class OrganismSpec(Config):
    """`fluoro organism train`: the organism from its seed, and the check of what came out."""

    training: OrganismTraining = OrganismTraining()

    n_checked: int = Field(512, ge=64)
    """Prompts of each kind that the check looks at."""

    threads: PositiveInt = 1
    """Threads of the training; part of what decides the last bits of its weights. So small a
    network gains little from more."""
