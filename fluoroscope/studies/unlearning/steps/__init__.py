"""The steps of the unlearning study."""
