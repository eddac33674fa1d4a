"""The organism: a small language model whose inside is known, and the world it lives in."""
