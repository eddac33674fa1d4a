"""Weighted sums of a bootstrap, and the batch of entries that all sums of correlations add.

Axes: `rows` samples of a call, `entries` active latents of theirs, `touched` latents with any,
`some` latents that are resampled, `b` resamples.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Batch:
    """Entries of some rows: sums over rows touch those latents alone that have any."""

    rows: Int[np.ndarray, " rows"]
    """Places of the rows among the outcomes."""

    starts: Int[np.ndarray, " n_starts"]
    latent: Int[np.ndarray, " entries"]
    value: Float[np.ndarray, " entries"]
    touched: Int[np.ndarray, " touched"]
    """In order."""

    column: Int[np.ndarray, " entries"]
    """Place of an entry's latent among those touched."""

    @classmethod
    def of(cls, rows: Int[np.ndarray, " rows"], pooled: csr_array) -> "Batch":
        touched, column = np.unique(pooled.indices, return_inverse=True)
        latent = pooled.indices.astype(np.int64)
        return cls(rows, pooled.indptr, latent, pooled.data, touched.astype(np.int64), column)

    def products(
        self, entries: Float[np.ndarray, " entries"], columns: Float[np.ndarray, "rows m"]
    ) -> Float[np.ndarray, "touched m"]:
        """Sum over rows of `entries` in place of the values, times each column."""
        shape = (len(self.rows), len(self.touched))
        return csr_array((entries, self.column, self.starts), shape=shape).T @ columns


class Resamples:
    """Sums over rows of w x, w x^2, w x y for each resample's weights w, and of w, w y, w y^2."""

    def __init__(self, latents: Int[np.ndarray, " some"], n_resamples: int) -> None:
        self.latents = latents
        self.sums: Float[np.ndarray, "3 some b"] = np.zeros((3, len(latents), n_resamples))
        self.weight: Float[np.ndarray, "3 b"] = np.zeros((3, n_resamples))

    def add(
        self,
        batch: Batch,
        x: Float[np.ndarray, " entries"],
        y: Float[np.ndarray, "rows 1"],
        weights: Float[np.ndarray, "rows b"],
    ) -> None:
        weighted = weights * y
        self.weight += [part.sum(axis=0) for part in (weights, weighted, weighted * y)]
        is_one = np.isin(batch.touched, self.latents)
        place = np.searchsorted(self.latents, batch.touched[is_one])
        for i, (entries, columns) in enumerate(((x, weights), (x**2, weights), (x, weighted))):
            self.sums[i, place] += batch.products(entries, columns)[is_one]

    def merge(self, other: "Resamples") -> None:
        """Takes in sums about the same pivots."""
        self.sums, self.weight = self.sums + other.sums, self.weight + other.weight

    def move(self, latents: Int[np.ndarray, " moved"], by: Float[np.ndarray, " moved"]) -> None:
        """Adds `by` to x in all rows seen."""
        is_one = np.isin(latents, self.latents)
        place, step = np.searchsorted(self.latents, latents[is_one]), by[is_one, None]
        x, xx, xy = self.sums[:, place]
        n, y, _ = self.weight
        self.sums[:, place] = [x + step * n, xx + 2 * step * x + step**2 * n, xy + step * y]

    def pearson(self) -> Float[np.ndarray, "some b"]:
        """The r of each resample; NaN where one of both does not vary."""
        x, xx, xy = self.sums
        n, y, yy = self.weight
        n = np.where(n > 0, n, np.nan)
        return correlation(xy - x * y / n, squares(x, xx, n), squares(y, yy, n))


def squares(total: np.ndarray, of_squares: np.ndarray, n: np.ndarray | float) -> np.ndarray:
    """Sum of squared deviations from the mean; zero where it is only rounding."""
    found = of_squares - total**2 / n
    return np.where(found > _ROUNDING * of_squares, found, 0.0)


def correlation(cross: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> np.ndarray:
    """In [-1, 1]; NaN where one of both does not vary."""
    return np.clip(divided(cross, np.sqrt(of_x) * np.sqrt(of_y)), -1.0, 1.0)


def divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below` where `below` is positive, else NaN."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.divide(above, below, out=result, where=below > 0)
