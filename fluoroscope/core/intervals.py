"""95 % intervals: of shares and means, also over rows that belong together; by units left out or
drawn again.
"""

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


def clustered_share_interval(
    is_so: Bool[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> Interval:
    """Of the share that is so, where rows of one cluster are alike.

    Wilson's at the number of independent rows that would tell as much (Korn and Graubard 1998;
    Dean and Pagano 2015), with Student's t. Where all rows are the same nothing tells how alike
    a cluster is, and each counts once.
    """
    share, sizes, surplus = _by_cluster(is_so.astype(float), cluster)
    n, n_clusters = len(is_so), len(sizes)
    if n_clusters < MIN_UNITS:
        return Interval(share, math.nan, math.nan)
    alone, together = share * (1 - share) / n, _variance_of_mean(surplus, n)
    effective = n * min(alone / max(together, 1e-300), 1.0) if alone else float(n_clusters)
    t = float(student.ppf(_TAILS[1], n_clusters - 1))
    middle = (share + t**2 / (2 * effective)) / (1 + t**2 / effective)
    reach = t * (share * (1 - share) / effective + t**2 / (4 * effective**2)) ** 0.5
    reach /= 1 + t**2 / effective
    # Rounding leaves the ends of none and of all beside 0 and 1.
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Interval(share, min(low, share), max(high, share))


def clustered_mean_interval(
    values: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> Interval:
    """Of a mean over rows, where those of one cluster are alike: by the spread of the clusters'
    sums around what their sizes would give (Cochran 1977, chapter 9A), and Student's t.

    Clusters without any spread do not tell how much others may differ: no ends.
    """
    mean, sizes, surplus = _by_cluster(values, cluster)
    if len(sizes) < MIN_UNITS or np.abs(surplus).max() <= 1e-12 * np.abs(values).sum():
        return Interval(mean, math.nan, math.nan)
    t = float(student.ppf(_TAILS[1], len(sizes) - 1))
    reach = t * _variance_of_mean(surplus, len(values)) ** 0.5
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


def jackknife_intervals(
    statistics: Callable[[Float[np.ndarray, "draws k"]], Float[np.ndarray, "draws m"]],
    totals: Float[np.ndarray, "units k"],
) -> list[Interval]:
    """Of smooth functions of sums over units: by how they change when one unit is left out, and
    Student's t (Tukey 1958; Efron and Stein 1981).

    Unlike percentiles of resamples, it is centred on the estimate where that is biased, as is the
    correlation of noisy means. No ends where leaving out a unit changes nothing, or all.
    """
    n = len(totals)
    values = statistics(totals.sum(0, keepdims=True))[0]
    if n < MIN_UNITS:
        return [Interval(float(value), math.nan, math.nan) for value in values]
    without = statistics(totals.sum(0) - totals)
    away = without - without.mean(0)
    # What is left of a constant is rounding.
    away[:, np.abs(away).max(0) <= 1e-12 * np.abs(without).max(0)] = math.nan
    reach = float(student.ppf(_TAILS[1], n - 1)) * ((n - 1) / n * (away**2).sum(0)) ** 0.5
    return [
        Interval(float(value), float(value - ends), float(value + ends))
        for value, ends in zip(values, reach, strict=True)
    ]


def _by_cluster(
    values: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> tuple[float, Int[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
    """The mean, and each cluster's size and how much its sum is above what its size gives."""
    if not len(values):
        return math.nan, np.empty(0, int), np.empty(0)
    _, which, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    sums = np.bincount(which, values)
    mean = float(sums.sum() / len(values))
    return mean, sizes, sums - mean * sizes


def _variance_of_mean(surplus: Float[np.ndarray, " clusters"], n: int) -> float:
    n_clusters = len(surplus)
    return float(n_clusters / (n_clusters - 1) * (surplus**2).sum() / n**2)
