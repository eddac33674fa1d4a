"""What a user says of the policy study; this module is free of torch."""

from fluoroscope.steps.subject_spec import SubjectSpec
from fluoroscope.studies.policy.settings import PolicySettings


class PolicySpec(PolicySettings, SubjectSpec):
    """`fluoro run policy`: learn at which tokens to steer, and with which of a few latents; show
    what that is worth beside the optimum, static steering and controls.
    """
