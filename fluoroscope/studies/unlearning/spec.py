"""What a user says of the unlearning study; this module is free of torch."""

from fluoroscope.steps.subject_spec import SubjectSpec
from fluoroscope.studies.unlearning.settings import UnlearningSettings


class UnlearningSpec(UnlearningSettings, SubjectSpec):
    """`fluoro run unlearning`: have a model forget some people or texts and keep all others, by
    clamping latents or by fine-tuning, and show what it costs beside controls.
    """
