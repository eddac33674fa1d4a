"""Forgetting by clamping latents, always or only where it is called for, beside fine-tuning."""
