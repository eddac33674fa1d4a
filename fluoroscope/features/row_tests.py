"""Two groups of rows, latent by latent, as if rows were independent: Welch, ranks, shares.

Where rows come in clusters these tests find too much (see `benchmarks/null_contrasts.py`); they
describe, and stand beside the clustered ones for comparison.

Axes: `n` rows, `d_sae` latents, `nonzero` active entries.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, stdtr

from fluoroscope.features.sparse_columns import EVEN, SparseColumns


@dataclass(frozen=True)
class Side:
    """Moments of one group."""

    n: int
    mean: Float[np.ndarray, " d_sae"]
    squares: Float[np.ndarray, " d_sae"]
    """Sum of squared deviations from the mean."""

    n_active: Float[np.ndarray, " d_sae"]

    @property
    def rate(self) -> Float[np.ndarray, " d_sae"]:
        return self.n_active / self.n

    @property
    def std(self) -> Float[np.ndarray, " d_sae"]:
        return np.sqrt(self.squares / self.n)

    @property
    def squared_error(self) -> Float[np.ndarray, " d_sae"]:
        """Of the mean, were rows independent; NaN from a single row."""
        return self.squares / (self.n - 1 or np.nan) / self.n


def side(columns: SparseColumns, is_of: Bool[np.ndarray, " n"]) -> Side:
    """Two passes over the active entries: no difference of large squares."""
    n = int(is_of.sum())
    counts = is_of[columns.row].astype(np.float64)
    n_active = columns.sum_active(counts)
    mean = columns.sum_active(columns.values * counts) / n
    squares = columns.sum_active(counts * (columns.values - mean[columns.latent]) ** 2)
    squares += (n - n_active) * mean**2
    squares[squares <= n * (EVEN * mean) ** 2] = 0
    return Side(n, mean, squares, n_active)


def pooled_sd(inside: Side, outside: Side) -> Float[np.ndarray, " d_sae"]:
    """Within groups, ddof 1; NaN where neither group has variance."""
    squares = inside.squares + outside.squares
    squares = np.where(squares > 0, squares, np.nan)
    return np.sqrt(squares / (inside.n + outside.n - 2))


def welch(
    inside: Side, outside: Side
) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
    """t, degrees of freedom and p (Welch 1947)."""
    a, b = inside.squared_error, outside.squared_error
    total = np.where(a + b > 0, a + b, np.nan)
    t = (inside.mean - outside.mean) / np.sqrt(total)
    # A single row on one side leaves `total` NaN, so its division by zero is never seen.
    df = total**2 / (a**2 / max(inside.n - 1, 1) + b**2 / max(outside.n - 1, 1))
    return t, df, two_sided_t(t, df)


def ranks(
    columns: SparseColumns, group: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
    """The share of in/out pairs in which in is larger (ties half), and Mann and Whitney's p.

    Normal approximation with corrections for ties and continuity; zeros are ranked as one tie.
    """
    midranks = columns.ranks
    n_in, n = int(group.sum()), columns.n
    n_pairs = n_in * (n - n_in)
    is_in = group[columns.row].astype(np.float64)
    n_zero_in = n_in - columns.sum_active(is_in)
    rank_sum = columns.sum_active(is_in * midranks.active) + n_zero_in * midranks.zero
    u = rank_sum - n_in * (n_in + 1) / 2
    variance = n_pairs / 12 * (n + 1 - midranks.ties / (n * (n - 1)))
    variance = np.where(columns.varies, variance, np.nan)
    z = (np.abs(u - n_pairs / 2) - 0.5) / np.sqrt(variance)
    return u / n_pairs, np.minimum(2 * ndtr(-z), 1)


def rate_p(inside: Side, outside: Side) -> Float[np.ndarray, " d_sae"]:
    """Of the two-proportion z test with pooled variance: p of the shares of active rows."""
    share = (inside.n_active + outside.n_active) / (inside.n + outside.n)
    variance = share * (1 - share) * (1 / inside.n + 1 / outside.n)
    z = (inside.rate - outside.rate) / np.sqrt(np.where(variance > 0, variance, np.nan))
    return 2 * ndtr(-np.abs(z))


def two_sided_t(
    t: Float[np.ndarray, " d_sae"], df: Float[np.ndarray, " d_sae"] | float
) -> Float[np.ndarray, " d_sae"]:
    return 2 * stdtr(df, -np.abs(t))
