"""What latents are: when they are active, what they do to the output, what goes with them."""
