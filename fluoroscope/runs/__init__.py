"""Work that is done once: runs, steps, executors and their record; nothing of language models."""
