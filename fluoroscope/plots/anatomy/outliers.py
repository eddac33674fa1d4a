"""Which points of a cloud stand far from the others, and so get their index written beside them."""

import numpy as np
from jaxtyping import Bool, Int, Real

MOST_OUTLIERS = 8

# Median absolute deviations beyond the median; 5 of a normal distribution are 3.4 standard
# deviations, one of some 3,000 points.
_DEVIATIONS = 5.0


def outliers(
    values: Real[np.ndarray, " points"], above: float | None = None
) -> Int[np.ndarray, " outliers"]:
    """Indices of the largest values, at most eight, the largest first.

    `above` is a limit in the values' unit, such as the note's mean activation of 100; without it
    the limit is the median and five median absolute deviations.
    """
    finite = np.isfinite(values)
    beyond = np.flatnonzero(finite & _is_beyond(values, finite, above))
    order = np.argsort(-np.asarray(values, np.float64)[beyond], kind="stable")
    return beyond[order][:MOST_OUTLIERS]


def _is_beyond(
    values: Real[np.ndarray, " points"], finite: Bool[np.ndarray, " points"], above: float | None
) -> Bool[np.ndarray, " points"]:
    if above is not None:
        return np.where(finite, values, -np.inf) > above
    if not finite.any():
        return finite
    median = float(np.median(values[finite]))
    deviation = float(np.median(np.abs(values[finite] - median)))
    # Of values that are nearly all alike, any other would be called an outlier.
    least = max(deviation, 1e-6 * abs(median))
    return np.where(finite, values, -np.inf) > median + _DEVIATIONS * least
