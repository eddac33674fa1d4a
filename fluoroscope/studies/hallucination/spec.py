"""What a user says of the hallucination study; this module is free of torch."""

from fluoroscope.core.config import Config
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.steps.sae_training_spec import SAETrainingSpec
from fluoroscope.steps.saes_spec import SAEsSpec
from fluoroscope.studies.hallucination.settings import HallucinationSettings


class _OfAModel(Config):
    # A base of its own, so that help names the model first.
    model: ModelSpec
    """The model that answers, or reads answers; `model=organism`, a folder, or a hub id."""

    saes: SAEsSpec = SAEsSpec()
    """SAEs that there are already: `organism:batch_topk`, a folder, a dictionary run."""

    train: SAETrainingSpec | None = None
    """How SAEs are trained here, where `saes` names none: `train.corpus=FILE`..."""


class HallucinationSpec(HallucinationSettings, _OfAModel):
    """`fluoro run hallucination`: does a model make its answer up, told by features that are
    tracked through its layers, and by all that is simpler?
    """
