"""What the activations of SAEs look like, layer by layer and position by position (seed 002)."""
