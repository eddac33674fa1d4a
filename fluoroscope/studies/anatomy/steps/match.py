"""Stub while the rest is built."""

MATCH = "match"
