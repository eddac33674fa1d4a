"""Sweeps of patches: which latents, set to which values, change what a model writes."""
