"""Which model a study looks into, and with which SAEs; this module is free of torch."""

from fluoroscope.core.config import Config
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.steps.sae_training_spec import SAETrainingSpec
from fluoroscope.steps.saes_spec import SAEsSpec


class SubjectSpec(Config):
    """A base of the specs of studies that need SAEs; help names the model first."""

    model: ModelSpec
    """The model that is looked into; `model=organism`, a folder, or a hub id."""

    saes: SAEsSpec = SAEsSpec()
    """SAEs that there are already: `organism:batch_topk`, a folder, a dictionary run."""

    train: SAETrainingSpec | None = None
    """How SAEs are trained here, where `saes` names none: `train.corpus=FILE`..."""
