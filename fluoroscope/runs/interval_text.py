"""Estimates with their intervals as sentences and tables have them."""

import math

import polars


def between(value: float, low: float | None, high: float | None, sign: str = "+") -> str:
    """`+0.156 [+0.144, +0.168]`, as sentences have it."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{value:{sign}.3f} (no interval)"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def without_nan(frame: polars.DataFrame) -> polars.DataFrame:
    """Cells that hold no number are empty in tables."""
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(polars.col(floats).fill_nan(None))
