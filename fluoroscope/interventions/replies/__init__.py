"""Replies of a model to samples, with and without edits: asked for, compared, judged."""
