"""What a user says of the steering study; this module is free of torch."""

from fluoroscope.steps.subject_spec import SubjectSpec
from fluoroscope.studies.steering.settings import SteeringSettings


class SteeringSpec(SteeringSettings, SubjectSpec):
    """`fluoro run steering`: pick features that go along with the outcome, steer with them, and
    show what it does beside other methods and controls.
    """
