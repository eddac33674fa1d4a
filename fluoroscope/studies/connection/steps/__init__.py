"""What a run of the connection study does, step by step."""
