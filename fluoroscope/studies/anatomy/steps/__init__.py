"""The steps of the anatomy study."""
