"""Means over sequences at each position, with their standard errors.

Axes: q sequences, p positions.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.stats import t as student

from fluoroscope.core.intervals import MIN_UNITS


class ByPosition(NamedTuple):
    n: Int[np.ndarray, " p"]
    """Sequences that have the position."""

    mean: Float[np.ndarray, " p"]
    """0 where none has it."""

    error: Float[np.ndarray, " p"]
    """Standard error; 0 where fewer than two have it."""


def by_position(values: Real[np.ndarray, "q p"], counted: Bool[np.ndarray, "q p"]) -> ByPosition:
    n = counted.sum(axis=0)
    mean = np.where(counted, values, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares = np.where(counted, (values - mean) ** 2, 0.0).sum(axis=0)
    error = np.sqrt(squares / np.maximum(n - 1, 1) / np.maximum(n, 1))
    return ByPosition(n, mean, np.where(n > 1, error, 0.0))


def reach(n: Int[np.ndarray, " p"], error: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """Half a 95 % interval of a mean (Student's t); NaN below 10 sequences, as everywhere."""
    t = student.ppf(0.975, np.maximum(n - 1, 1))
    return np.where(n >= MIN_UNITS, t * error, np.nan)


def predicted(exists: Bool[np.ndarray, "q p"], is_text: Bool[np.ndarray, "q p"]) -> np.ndarray:
    """At which positions the next token is scored: where it is there and stands for text."""
    found = np.zeros_like(exists)
    found[:, :-1] = exists[:, :-1] & exists[:, 1:] & is_text[:, 1:]
    return found
