"""Statistics of many series in one pass, in parts that can be merged.

Each class holds float64 sums of a fixed size, whatever was seen; `add` takes rows, `merge`
two halves, and the merge of the parts is the whole (up to rounding; exactly for counts and
ends). A series that was never added to has a count of zero and NaN for the rest.

- `Moments`: count, mean, variance, smallest, largest (Chan, Golub and LeVeque 1979).
- `CoMoments`: covariance and Pearson correlation of every left with every right series.
- `quantile_sketch.QuantileSketch`, next door, does the same for quantiles.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from fluoroscope.core.errors import NumericsError

Arrays = dict[str, np.ndarray]


class Moments:
    """Moments of `n_series` series; each may have another count, by a mask."""

    def __init__(self, n_series: int) -> None:
        self.count: Int[np.ndarray, " series"] = np.zeros(n_series, dtype=np.int64)
        self.minimum: Float[np.ndarray, " series"] = np.full(n_series, np.inf)
        self.maximum: Float[np.ndarray, " series"] = np.full(n_series, -np.inf)
        self._mean = np.zeros(n_series)
        self._squares = np.zeros(n_series)

    def add(
        self,
        rows: Real[np.ndarray, "rows series"],
        mask: Bool[np.ndarray, "rows series"] | None = None,
    ) -> None:
        """Adds all rows, or of each row only the series that `mask` marks."""
        values = checked_rows(rows, len(self.count))
        if mask is None:
            mask = np.ones(values.shape, dtype=bool)
        part = type(self)(len(self.count))
        part.count = mask.sum(axis=0)
        part._mean = _divided(np.where(mask, values, 0.0).sum(axis=0), part.count, missing=0.0)
        part._squares = (np.where(mask, values - part._mean, 0.0) ** 2).sum(axis=0)
        part.minimum = np.where(mask, values, np.inf).min(axis=0, initial=np.inf)
        part.maximum = np.where(mask, values, -np.inf).max(axis=0, initial=-np.inf)
        self.merge(part)

    def merge(self, other: "Moments") -> None:
        """Takes in what `other` has seen."""
        total = self.count + other.count
        delta = other._mean - self._mean
        share = _divided(other.count.astype(np.float64), total, missing=0.0)
        self._squares = self._squares + other._squares + delta**2 * self.count * share
        self._mean = self._mean + delta * share
        self.count = total
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)

    @property
    def mean(self) -> Float[np.ndarray, " series"]:
        return np.where(self.count > 0, self._mean, np.nan)

    def variance(self, ddof: int = 1) -> Float[np.ndarray, " series"]:
        """Never negative; NaN where there are not more than `ddof` values."""
        return _divided(self._squares, self.count - ddof)

    def std(self, ddof: int = 1) -> Float[np.ndarray, " series"]:
        return np.sqrt(self.variance(ddof))

    def state(self) -> Arrays:
        """Arrays that `from_state` makes the same object of."""
        return {
            "count": self.count,
            "mean": self._mean,
            "squares": self._squares,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "Moments":
        made = cls(len(state["count"]))
        made.count, made._mean, made._squares = state["count"], state["mean"], state["squares"]
        made.minimum, made.maximum = state["minimum"], state["maximum"]
        return made


class CoMoments:
    """Joint moments of every left series with every right one, over the same rows."""

    def __init__(self, n_left: int, n_right: int) -> None:
        self.count = 0
        self._left_mean, self._right_mean = np.zeros(n_left), np.zeros(n_right)
        self._left_squares, self._right_squares = np.zeros(n_left), np.zeros(n_right)
        self._products = np.zeros((n_left, n_right))

    def add(
        self, left: Real[np.ndarray, "rows left"], right: Real[np.ndarray, "rows right"]
    ) -> None:
        left, right = (
            checked_rows(left, *self._left_mean.shape),
            checked_rows(right, *self._right_mean.shape),
        )
        if len(left) != len(right):
            raise ValueError(f"Rows must pair up, got {len(left)} left and {len(right)} right.")
        if len(left) == 0:
            return
        part = type(self)(left.shape[1], right.shape[1])
        part.count = len(left)
        part._left_mean, part._right_mean = left.mean(axis=0), right.mean(axis=0)
        left, right = left - part._left_mean, right - part._right_mean
        part._left_squares, part._right_squares = (left**2).sum(axis=0), (right**2).sum(axis=0)
        part._products = left.T @ right
        self.merge(part)

    def merge(self, other: "CoMoments") -> None:
        """Takes in what `other` has seen."""
        total = self.count + other.count
        if total == 0:
            return
        share = other.count / total
        left, right = other._left_mean - self._left_mean, other._right_mean - self._right_mean
        between = self.count * share
        self._left_squares = self._left_squares + other._left_squares + between * left**2
        self._right_squares = self._right_squares + other._right_squares + between * right**2
        self._products = self._products + other._products + between * np.outer(left, right)
        self._left_mean = self._left_mean + share * left
        self._right_mean = self._right_mean + share * right
        self.count = total

    def covariance(self, ddof: int = 1) -> Float[np.ndarray, "left right"]:
        return (
            self._products / (self.count - ddof) if self.count > ddof else self._products * np.nan
        )

    def pearson(self) -> Float[np.ndarray, "left right"]:
        """Correlations in [-1, 1]; NaN where a series does not vary."""
        scale = np.sqrt(np.outer(self._left_squares, self._right_squares))
        return np.clip(_divided(self._products, scale), -1.0, 1.0)

    def state(self) -> Arrays:
        """Arrays that `from_state` makes the same object of."""
        return {
            "count": np.array([self.count]),
            "left_mean": self._left_mean,
            "right_mean": self._right_mean,
            "left_squares": self._left_squares,
            "right_squares": self._right_squares,
            "products": self._products,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "CoMoments":
        made = cls(*state["products"].shape)
        made.count, made._products = int(state["count"][0]), state["products"]
        made._left_mean, made._right_mean = state["left_mean"], state["right_mean"]
        made._left_squares = state["left_squares"]
        made._right_squares = state["right_squares"]
        return made


def checked_rows(rows: np.ndarray, n_series: int) -> Float[np.ndarray, "rows series"]:
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != n_series:
        raise ValueError(f"Rows must have shape (rows, {n_series}), got {values.shape}.")
    bad = ~np.isfinite(values)
    if bad.any():
        row, series = np.argwhere(bad)[0]
        raise NumericsError(
            f"Row {row} of series {series} is {values[row, series]}; statistics need finite "
            "numbers. Find where it comes from, or leave the row out."
        )
    return values


def _divided(above: np.ndarray, below: np.ndarray, missing: float = np.nan) -> np.ndarray:
    """`above / below` where `below` is positive, else `missing`."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), missing)
    return np.divide(above, below, out=result, where=below > 0)
