"""Quantiles of many series in one pass with a bounded relative error, in parts that merge.

DDSketch (Masson, Rim and Lee 2019, arXiv:1908.10693): a value x > 0 is counted in bin
ceil(log_g x) with g = (1 + e) / (1 - e), so that the middle of its bin is within a share e
of x. Counts are integers: neither order nor grouping changes anything, to the last bit. The
window of bins grows with the range of what was seen (115 bins a decade at e = 0.01).
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Real

from fluoroscope.core.running_stats import Arrays, checked_rows


class QuantileSketch:
    """Quantiles of `n_series` series of any sign.

    What is nearer to zero than `smallest` counts as zero.
    """

    def __init__(self, n_series: int, relative_error: float = 0.01, smallest: float = 1e-9) -> None:
        if not 0 < relative_error < 1:
            raise ValueError(f"relative_error must lie between 0 and 1, got {relative_error}.")
        self.relative_error, self.smallest = relative_error, smallest
        self.zeros: Int[np.ndarray, " series"] = np.zeros(n_series, dtype=np.int64)
        self._positive = _Bins(n_series)
        self._negative = _Bins(n_series)
        self._log_growth = math.log((1 + relative_error) / (1 - relative_error))

    @property
    def count(self) -> Int[np.ndarray, " series"]:
        return self.zeros + self._positive.counts.sum(axis=1) + self._negative.counts.sum(axis=1)

    def add(self, rows: Real[np.ndarray, "rows series"]) -> None:
        values = checked_rows(rows, len(self.zeros))
        is_zero = np.abs(values) < self.smallest
        self.zeros = self.zeros + is_zero.sum(axis=0)
        self._count(self._positive, values, ~is_zero & (values > 0))
        self._count(self._negative, -values, ~is_zero & (values < 0))

    def merge(self, other: "QuantileSketch") -> None:
        """Takes in what `other` has seen."""
        mine, yours = (self.relative_error, self.smallest), (other.relative_error, other.smallest)
        if mine != yours:
            raise ValueError(
                f"Sketches of (relative_error, smallest) {mine} and {yours} have different bins."
            )
        self.zeros = self.zeros + other.zeros
        self._positive.merge(other._positive)
        self._negative.merge(other._negative)

    def quantile(self, share: float | int) -> Float[np.ndarray, " series"]:
        """The value of rank floor(share * (count - 1)), within the relative error; NaN if none."""
        if not 0 <= share <= 1:
            raise ValueError(f"A quantile is asked for by a share from 0 to 1, got {share}.")
        # From the most negative bin over zero to the most positive one.
        counts = np.concatenate(
            [self._negative.counts[:, ::-1], self.zeros[:, None], self._positive.counts], axis=1
        )
        below, above = self._middles(self._negative), self._middles(self._positive)
        values = np.concatenate([-below[::-1], [0.0], above])
        total = counts.sum(axis=1)
        rank = np.floor(share * np.maximum(total - 1, 0)).astype(np.int64)
        place = (counts.cumsum(axis=1) <= rank[:, None]).sum(axis=1)
        return np.where(total > 0, values[np.minimum(place, len(values) - 1)], np.nan)

    def state(self) -> Arrays:
        """Arrays that `from_state` makes the same object of."""
        return {
            "settings": np.array([self.relative_error, self.smallest]),
            "zeros": self.zeros,
            "positive": self._positive.counts,
            "negative": self._negative.counts,
            "first_bins": np.array([self._positive.first, self._negative.first]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "QuantileSketch":
        made = cls(len(state["zeros"]), *map(float, state["settings"]))
        made.zeros = state["zeros"]
        firsts = map(int, state["first_bins"])
        for bins, key, first in zip(
            (made._positive, made._negative), ("positive", "negative"), firsts, strict=True
        ):
            bins.counts, bins.first = state[key], first
        return made

    def _count(self, bins: "_Bins", values: np.ndarray, chosen: np.ndarray) -> None:
        if not chosen.any():
            return
        _, series = np.nonzero(chosen)
        numbers = np.ceil(np.log(values[chosen]) / self._log_growth).astype(np.int64)
        bins.add(series, numbers)

    def _middles(self, bins: "_Bins") -> np.ndarray:
        numbers = bins.first + np.arange(bins.counts.shape[1])
        growth = math.exp(self._log_growth)
        return 2 * np.exp(numbers * self._log_growth) / (growth + 1)


class _Bins:
    """Counts of bins `first`, `first + 1`, ... for every series."""

    def __init__(self, n_series: int) -> None:
        self.first = 0
        self.counts: Int[np.ndarray, "series bins"] = np.zeros((n_series, 0), dtype=np.int64)

    def add(self, series: np.ndarray, numbers: np.ndarray) -> None:
        self._cover(int(numbers.min()), int(numbers.max()) + 1)
        n_series, n_bins = self.counts.shape
        flat = series * n_bins + (numbers - self.first)
        new = np.bincount(flat, minlength=n_series * n_bins)
        self.counts = self.counts + new.reshape(n_series, n_bins)

    def merge(self, other: "_Bins") -> None:
        n_bins = other.counts.shape[1]
        if n_bins == 0:
            return
        self._cover(other.first, other.first + n_bins)
        start = other.first - self.first
        self.counts = self.counts.copy()
        self.counts[:, start : start + n_bins] += other.counts

    def _cover(self, first: int, end: int) -> None:
        n_bins = self.counts.shape[1]
        if n_bins == 0:
            self.first, self.counts = first, np.zeros((len(self.counts), end - first), np.int64)
            return
        before, after = max(self.first - first, 0), max(end - self.first - n_bins, 0)
        self.counts = np.pad(self.counts, ((0, 0), (before, after)))
        self.first -= before
