"""Measurements against named peers; `python -m benchmarks.NAME --json FILE`."""
