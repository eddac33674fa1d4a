"""Which points of a large cloud are drawn where all of them would be too many.

Of 24,576 latents in ten series and twelve panels a png shows all; a page that held them all
could not be opened. The choice is even along the series and the same every time.
"""

import math
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int

from fluoroscope.plots.marks import Mark, Scatter


def is_drawable(
    mark: Scatter, *, log_x: bool = False, log_y: bool = False
) -> Bool[np.ndarray, " points"]:
    """Whether a point has a place: finite, and above zero on a log axis."""
    x, y = np.asarray(mark.x, np.float64), np.asarray(mark.y, np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    if log_x:
        kept &= x > 0
    return kept & (y > 0) if log_y else kept


def kept_points(
    candidates: Int[np.ndarray, " candidates"], most: int, always: Collection[int]
) -> Int[np.ndarray, " kept"]:
    """At most `most` of the candidates, evenly from first to last, in order.

    Candidates in `always`, which have words beside them, are kept beyond that number.
    """
    if len(candidates) <= most:
        return candidates
    places = np.linspace(0, len(candidates) - 1, max(most, 1)).round().astype(np.int64)
    named = candidates[np.isin(candidates, np.asarray(sorted(always), np.int64))]
    return np.union1d(candidates[places], named)


def points_a_series(marks: Sequence[Mark], most: int | None) -> int | None:
    """`most`, or less where a panel has so many series that they share twice as many."""
    n = sum(isinstance(mark, Scatter) for mark in marks)
    if most is None or n == 0:
        return most
    return max(min(most, math.floor(2 * most / n)), 1)


def thinned_words(n_shown: int, n_drawable: int) -> str:
    """What is said below a panel that shows some of its points; nothing if it shows all."""
    if n_shown >= n_drawable:
        return ""
    return f"{n_shown:,} of {n_drawable:,} points shown"
