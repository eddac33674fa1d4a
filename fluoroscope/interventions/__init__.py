"""Edits of activations while a model runs: for all rows, or a different one for every row."""
