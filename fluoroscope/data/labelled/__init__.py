"""Labelled texts: the sets that small classifiers are fine-tuned on, their splits, and batches."""
