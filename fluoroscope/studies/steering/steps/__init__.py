"""The steps of the steering study."""
