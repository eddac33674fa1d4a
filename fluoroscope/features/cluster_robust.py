"""Differences between groups with errors that respect clusters, for all latents at once.

Errors are sums over clusters of squared sums within a cluster (Liang and Zeger 1986), with the
small-sample factor CR1. For a latent x, its fitted values are few numbers times few columns, so

    sum over rows of cluster of w (x - fit) = a_c - b_c . h,

with a_c sparse (only active rows), b_c the same short vector for all latents, and h short and
cheap. Then the sum over clusters of squares is |a|^2 - 2 h.(B'a) + h.(B'B)h: sparse products only.

Axes: `n` rows, `d_sae` latents, `c` clusters, `rank` columns of the basis, `b` of a base.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.special import stdtrit

from fluoroscope.features.row_tests import Side, pooled_sd, two_sided_t
from fluoroscope.features.sparse_columns import SparseColumns

EXPLAINED = 1e-9
"""Share of the group's variance that covariates must leave for a coefficient to exist."""

_ROUNDING = 1e-13


class Coefficient(NamedTuple):
    """Of the group, in the units of the latent."""

    value: Float[np.ndarray, " d_sae"]
    error: Float[np.ndarray, " d_sae"]
    t: Float[np.ndarray, " d_sae"]
    p: Float[np.ndarray, " d_sae"]


class ClusteredDifference(NamedTuple):
    """p of the difference of means, and the 95 % interval of Cohen's d."""

    p: Float[np.ndarray, " d_sae"]
    d_low: Float[np.ndarray, " d_sae"]
    d_high: Float[np.ndarray, " d_sae"]


def adjusted_difference(
    columns: SparseColumns,
    group: Bool[np.ndarray, " n"],
    basis: Float[np.ndarray, "n rank"],
    in_basis: Float[np.ndarray, "d_sae rank"],
) -> Coefficient:
    """Coefficient of the group in OLS on the group and the covariates that `basis` spans.

    The group is residualised once (Frisch, Waugh and Lovell); `in_basis` is
    `columns.project(basis)`, which does not depend on the group. As in statsmodels, t has one
    degree of freedom less than there are clusters: liberal where few of them are in the group.
    All are NaN where the covariates say all of the group.
    """
    residual = residual_of(group.astype(np.float64), basis)
    norm = residual @ residual
    n, n_clusters = columns.n, columns.n_clusters
    n_free = n - basis.shape[1] - 1
    if is_explained(group, basis) or n_free < 1 or n_clusters < 2:
        return Coefficient(*np.full((4, columns.d_sae), np.nan))
    value = columns.project(residual[:, None])[:, 0] / norm
    weighted = residual[:, None] * np.hstack([basis, residual[:, None]])
    squares = cluster_squares(
        columns.by_cluster(columns.values * residual[columns.row]),
        -sum_rows(columns, weighted),
        np.hstack([in_basis, value[:, None]]),
    )
    factor = n_clusters / (n_clusters - 1) * (n - 1) / n_free
    squares = np.where(columns.varies & (squares > 0), squares, np.nan)
    error = np.sqrt(factor * squares) / norm
    t = value / error
    return Coefficient(value, error, t, two_sided_t(t, n_clusters - 1))


def clustered_difference(
    columns: SparseColumns, group: Bool[np.ndarray, " n"], inside: Side, outside: Side
) -> ClusteredDifference:
    """Without covariates; the interval by the delta method.

    Both use t with one degree of freedom less than the smaller group has clusters; NaN where
    that leaves none. The interval's error is the larger of that with the standard deviation
    taken as known and that with its own error: where a latent is rare the two go together and
    would make the interval narrow.
    """
    n_clusters = columns.n_clusters
    counts = sum_rows(columns, np.stack([group, ~group], axis=1).astype(np.float64))
    df = int((counts > 0).sum(axis=0).min()) - 1
    sd = pooled_sd(inside, outside)
    if df < 1:
        return ClusteredDifference(*np.full((3, columns.d_sae), np.nan))
    factor = n_clusters / (n_clusters - 1) * (columns.n - 1) / (columns.n - 2)
    difference = inside.mean - outside.mean
    d = difference / sd

    def error(of_spread: Float[np.ndarray, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
        """Of difference / sd, whose influence is a row's deviation and, times `of_spread`, its
        deviation squared.
        """
        at_zero, entries = [], np.zeros(len(columns.values))
        for is_of, part, sign in ((group, inside, 1), (~group, outside, -1)):
            slope = sign / (part.n * sd)
            centre, variance = part.mean, part.squares / part.n
            bend = of_spread / (2 * sd**2 * (columns.n - 2))
            at_zero.append(-slope * centre - bend * (centre**2 - variance))
            of = columns.latent
            # What an active row adds to that of a zero: slope x - bend (x^2 - 2 x centre).
            x = columns.values
            added = x * (slope[of] - bend[of] * (x - 2 * centre[of]))
            entries += np.where(is_of[columns.row], added, 0)
        squares = cluster_squares(columns.by_cluster(entries), counts, np.stack(at_zero, axis=1))
        return np.sqrt(factor * np.where(squares > 0, squares, np.nan))

    of_means = error(np.zeros_like(d))
    reach = float(stdtrit(df, 0.975)) * np.maximum(of_means, error(d))
    return ClusteredDifference(two_sided_t(d / of_means, df), d - reach, d + reach)


def is_explained(group: Bool[np.ndarray, " n"], basis: Float[np.ndarray, "n rank"]) -> bool:
    """Whether the covariates say all of the group."""
    residual = residual_of(group.astype(np.float64), basis)
    share = group.mean()
    return bool(residual @ residual <= EXPLAINED * len(group) * share * (1 - share))


def residual_of(
    values: Float[np.ndarray, " n"], basis: Float[np.ndarray, "n rank"]
) -> Float[np.ndarray, " n"]:
    """What the basis does not explain; twice, for the rounding of the first time."""
    for _ in range(2):
        values = values - basis @ (basis.T @ values)
    return values


def sum_rows(columns: SparseColumns, rows: Float[np.ndarray, "n b"]) -> Float[np.ndarray, "c b"]:
    """Sums over the rows of each cluster."""
    n, n_clusters = columns.n, columns.n_clusters
    member = csr_array((np.ones(n), columns.cluster, np.arange(n + 1)), shape=(n, n_clusters))
    return member.T @ rows


def cluster_squares(
    active: csr_array, base: Float[np.ndarray, "c b"], share: Float[np.ndarray, "d_sae b"]
) -> Float[np.ndarray, " d_sae"]:
    """Sum over clusters of (active + base . share)^2; zero where it is only rounding."""
    own = active.multiply(active).sum(axis=1)
    crossed = 2 * ((active @ base) * share).sum(axis=1)
    based = ((share @ (base.T @ base)) * share).sum(axis=1)
    squares = own + crossed + based
    return np.where(squares > _ROUNDING * (own + based), squares, 0)
