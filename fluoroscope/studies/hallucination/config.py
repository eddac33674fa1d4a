"""A hallucination study as it is worked on: the spec with what only the model and the SAEs know."""

from fluoroscope.data.answers.sizes import Size, expected_size
from fluoroscope.steps.subject import Subject
from fluoroscope.studies.hallucination.settings import HallucinationSettings


class HallucinationConfig(HallucinationSettings, Subject):
    """A `HallucinationSpec` with everything filled in."""

    @property
    def size(self) -> Size:
        """Questions and answers that a plan reckons with."""
        data = self.data
        return expected_size(data.name, is_asked=data.answers == "own", limit=data.limit)
