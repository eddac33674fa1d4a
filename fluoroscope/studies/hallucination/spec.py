"""What a user says of the hallucination study; this module is free of torch."""

from fluoroscope.steps.subject_spec import SubjectSpec
from fluoroscope.studies.hallucination.settings import HallucinationSettings


class HallucinationSpec(HallucinationSettings, SubjectSpec):
    """`fluoro run hallucination`: does a model make its answer up, told by features that are
    tracked through its layers, and by all that is simpler?
    """
