"""What a model computes inside: captured in one pass, kept on disk, streamed in batches."""
