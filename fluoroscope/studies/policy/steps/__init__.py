"""The steps of the policy study."""
