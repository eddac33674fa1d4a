"""Sparse autoencoders: architectures, training, evaluation, file formats."""
