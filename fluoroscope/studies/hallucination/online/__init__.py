"""A score after every token, from what is known by then."""
