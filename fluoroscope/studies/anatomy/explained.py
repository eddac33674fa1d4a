"""How much of an activation an SAE explains, from sums that were kept of each sequence.

Axes: q sequences, d model width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fluoroscope.core.intervals import Interval, mean_interval, ratio_interval

Sums = Mapping[str, np.ndarray]
"""Of each sequence: `n`, `x_mean` [q, d], `x_squares`, `e_mean` [q, d], `e_squares`."""


class Explained(NamedTuple):
    explained_variance: Interval
    """1 - Var(x - x^) / Var(x), with a bootstrap interval over sequences."""

    mean_square_error: Interval
    """Mean over text tokens and dimensions of (x - x^)^2, over sequences."""

    mean: Float[np.ndarray, " d"]
    """Of the activations, over text tokens."""


def explained(sums: Sums, seed: int) -> Explained:
    """NaN where there is no text token, or no variance."""
    n, d_model = sums["n"], sums["x_mean"].shape[1]
    x_mean = _mean(n, sums["x_mean"])
    e_mean = _mean(n, sums["e_mean"])
    above = _about(n, sums["e_mean"], sums["e_squares"], e_mean)
    below = _about(n, sums["x_mean"], sums["x_squares"], x_mean)
    unexplained = ratio_interval(above, below, seed)
    errors = _about(n, sums["e_mean"], sums["e_squares"], np.zeros(d_model))
    has_text = n > 0
    per_token = errors[has_text] / n[has_text] / d_model
    found = mean_interval(per_token) if len(per_token) else Interval(*[float("nan")] * 3)
    reversed_ = Interval(1 - unexplained.value, 1 - unexplained.high, 1 - unexplained.low)
    return Explained(reversed_, found, x_mean)


def _mean(n: Float[np.ndarray, " q"], means: Float[np.ndarray, "q d"]) -> Float[np.ndarray, " d"]:
    return (n[:, None] * means).sum(axis=0) / max(n.sum(), 1.0)


def _about(n: np.ndarray, means: np.ndarray, squares: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Of each sequence the sum of squared distances from `centre`."""
    return squares + n * ((means - centre) ** 2).sum(axis=1)
