"""95 % intervals: of a share, of a mean, and by resampling whole units."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from fluoroscope.core.seeding import stream

MIN_UNITS = 10
"""Units (documents, pairs, prompts) below which an interval is not given."""

_TAILS = (0.025, 0.975)


class Interval(NamedTuple):
    """An estimate and its 95 % interval.

    NaN stands for what cannot be told: a ratio whose denominator is zero, or the ends of an
    interval from fewer than 10 units, which resampling would make too narrow.
    """

    value: float
    low: float
    high: float


def share_interval(is_so: Bool[np.ndarray, " n"]) -> Interval:
    """Of the share that is so (Wilson 1927)."""
    found = binomtest(int(is_so.sum()), len(is_so)).proportion_ci(method="wilson")
    return Interval(float(is_so.mean()), float(found.low), float(found.high))


def mean_interval(values: Float[np.ndarray, " n"]) -> Interval:
    """Of a mean, by its standard error and Student's t."""
    mean = float(values.mean())
    if len(values) < MIN_UNITS:
        return Interval(mean, math.nan, math.nan)
    t = float(student.ppf(_TAILS[1], len(values) - 1))
    reach = t * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - reach, mean + reach)


def paired_interval(gained: int, lost: int, n: int) -> Interval:
    """Of a difference of shares among `n` pairs, `gained` of which are so only with, `lost` only
    without (Bonett and Price 2012).
    """
    # One more of each: pairs of which none differs leave a difference possible.
    more, less, total = (gained + 1) / (n + 2), (lost + 1) / (n + 2), n + 2
    reach = float(norm.ppf(_TAILS[1])) * ((more + less - (more - less) ** 2) / total) ** 0.5
    low, high = max(-1.0, more - less - reach), min(1.0, more - less + reach)
    return Interval((gained - lost) / n, low, high)


def ratio_interval(
    above: Float[np.ndarray, " n"],
    below: Float[np.ndarray, " n"],
    seed: int,
    n_resamples: int = 1000,
) -> Interval:
    """Of sum(above) / sum(below), by a percentile bootstrap over units."""
    if below.sum() == 0:
        return Interval(math.nan, math.nan, math.nan)

    def ratio(chosen: Int[np.ndarray, " n"]) -> float:
        total = below[chosen].sum()
        return above[chosen].sum() / total if total else math.nan

    return resampled_interval(ratio, len(above), seed, n_resamples)


def resampled_interval(
    statistic: Callable[[Int[np.ndarray, " n"]], float], n: int, seed: int, n_resamples: int = 1000
) -> Interval:
    """Of a function of which of `n` units are taken, by a percentile bootstrap."""
    value = float(statistic(np.arange(n)))
    if n < MIN_UNITS or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    random = stream(seed, "bootstrap")
    draws = [statistic(random.integers(n, size=n)) for _ in range(n_resamples)]
    # A draw that cannot be told says nothing of the others.
    low, high = np.nanquantile(draws, _TAILS)
    return Interval(value, float(low), float(high))
