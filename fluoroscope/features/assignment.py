"""One to one: which latents of two SAEs are paired so that the sum of their cosines is highest.

Up to a stated size the assignment is the best there is (scipy's `linear_sum_assignment`, after
Jonker and Volgenant 1987). Beyond it only the highest cosines of each latent of either side are
candidates, and the answer comes with an upper bound on what the best could reach: what is not a
candidate is at most the last one of its latent, so every latent of the smaller side may, for the
bound, stay alone at that cosine. The best of that easier problem is found exactly
(`min_weight_full_bipartite_matching`) and is the bound; latents that stayed alone in it are then
paired among what is left. Where none stayed alone the assignment is the best, and bound and sum
are one.

Axes: p pairs, e candidates in all, k candidates of a latent.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from fluoroscope.core.errors import ConfigError
from fluoroscope.features import top_matches_kernels as kernels
from fluoroscope.features.matching import Neighbours
from fluoroscope.features.top_matches import Directions, TopMatches, top_matches

EXACT_UP_TO = 8192
"""Latents of the larger side up to which the assignment is exact: 8 x 8,192^2 bytes, 0.54 GB."""

N_CANDIDATES = 32


@dataclass(frozen=True, eq=False)
class Assignment:
    """A pair for every live latent of the smaller side; sorted by latents of a."""

    latents_a: Int32[np.ndarray, " p"]
    latents_b: Int32[np.ndarray, " p"]
    cosines: Float32[np.ndarray, " p"]
    upper_bound: float
    """What the sum of the cosines of the best assignment is at most."""

    n_candidates: int | None = None
    """Nearest latents of either side that could be paired; None where all could."""

    @property
    def total(self) -> float:
        """The sum of the cosines, which was to be as high as possible."""
        return float(self.cosines.astype(np.float64).sum())

    @property
    def gap(self) -> float:
        """By how much the best assignment can be better, in the sum of cosines."""
        return max(0.0, self.upper_bound - self.total)

    @property
    def is_exact(self) -> bool:
        """Whether no assignment has a higher sum."""
        return self.gap <= 1e-9 * max(1.0, abs(self.total))


def one_to_one(
    a: Directions,
    b: Directions,
    exact_up_to: int = EXACT_UP_TO,
    n_candidates: int = N_CANDIDATES,
    found: TopMatches | None = None,
) -> Assignment:
    """The assignment of the highest sum, exact where neither side has more than `exact_up_to`
    live latents; `found` are top matches of at least `n_candidates`, if they are known already.
    """
    if a.width != b.width:
        raise ConfigError(f"Both SAEs must have one d_model, got {a.width} and {b.width}.")
    if n_candidates < 1:
        raise ConfigError(f"n_candidates must be 1 or more, got {n_candidates}.")
    if max(len(a), len(b)) <= max(exact_up_to, n_candidates):
        return _exact(a, b)
    found = top_matches(a, b, n_candidates) if found is None else found
    if len(a) <= len(b):
        rows, columns, bound = _among_candidates(a, b, found, n_candidates, exact_up_to)
    else:
        swapped = TopMatches(found.of_b, found.of_a)
        columns, rows, bound = _among_candidates(b, a, swapped, n_candidates, exact_up_to)
    return _assignment(a, b, rows, columns, bound, n_candidates)


def _exact(a: Directions, b: Directions) -> Assignment:
    # Rows are the smaller side: scipy copies the matrix where they are not.
    flipped = len(a) > len(b)
    costs = kernels.all_cosines(b.rows, a.rows) if flipped else kernels.all_cosines(a.rows, b.rows)
    # Negated in place, for scipy copies it to maximise.
    np.negative(costs, out=costs)
    rows, columns = linear_sum_assignment(costs)
    if flipped:
        rows, columns = columns, rows
    return _assignment(a, b, rows, columns, None, None)


def _assignment(
    a: Directions,
    b: Directions,
    rows: np.ndarray,
    columns: np.ndarray,
    bound: float | None,
    n_candidates: int | None,
) -> Assignment:
    order = np.argsort(rows)
    rows, columns = rows[order], columns[order]
    cosines = kernels.pair_cosines(a.rows[rows], b.rows[columns])
    total = float(cosines.astype(np.float64).sum())
    return Assignment(
        a.latents[rows],
        b.latents[columns],
        cosines,
        total if bound is None else max(bound, total),
        n_candidates,
    )


def _among_candidates(
    a: Directions, b: Directions, found: TopMatches, k: int, exact_up_to: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows of `a`, the smaller side, the rows of `b` that they are paired with, and the bound."""
    n_rows, n_columns = len(a), len(b)
    edges, last = _candidates(a, b, found, k)
    # Beyond the columns each row has one of its own, where it is alone.
    rows = np.concatenate([edges.rows, np.arange(n_rows)])
    columns = np.concatenate([edges.columns, n_columns + np.arange(n_rows)])
    # All costs are positive: what is 0 is no entry of a sparse matrix.
    costs = 2.0 - np.concatenate([edges.cosines, last])
    graph = csr_array((costs, (rows, columns)), shape=(n_rows, n_columns + n_rows))
    _, chosen = min_weight_full_bipartite_matching(graph)
    bound = float((2.0 - graph[np.arange(n_rows), chosen]).sum())
    alone = np.flatnonzero(chosen >= n_columns)
    is_free = np.ones(n_columns, bool)
    is_free[chosen[chosen < n_columns]] = False
    chosen[alone] = _pair_rest(a, b, alone, np.flatnonzero(is_free), exact_up_to)
    return np.arange(n_rows), chosen, bound


@dataclass(frozen=True, eq=False)
class _Edges:
    rows: Int32[np.ndarray, " e"]
    columns: Int32[np.ndarray, " e"]
    cosines: Float64[np.ndarray, " e"]


def _candidates(
    a: Directions, b: Directions, found: TopMatches, k: int
) -> tuple[_Edges, Float64[np.ndarray, " n"]]:
    """What is among the k nearest of its row or of its column, each once; and the last of each
    row's, above which nothing is that is not among them.
    """
    of_a, of_b = _listed(a, b, found.of_a, k), _listed(b, a, found.of_b, k)
    rows = np.concatenate([of_a.rows, of_b.columns])
    columns = np.concatenate([of_a.columns, of_b.rows])
    cosines = np.concatenate([of_a.cosines, of_b.cosines])
    _, first = np.unique(rows.astype(np.int64) * len(b) + columns, return_index=True)
    n_listed = len(of_a.rows) // len(a)
    last = of_a.cosines.reshape(len(a), n_listed)[:, -1]
    return _Edges(rows[first], columns[first], cosines[first]), last


def _listed(one: Directions, other: Directions, near: Neighbours, k: int) -> _Edges:
    n_listed = min(k, len(other))
    if near.indices.shape[1] < n_listed:
        raise ConfigError(
            f"Top matches of {n_listed} or more are needed for as many candidates, "
            f"got {near.indices.shape[1]}."
        )
    place = np.full(other.n_latents, -1, np.int32)
    place[other.latents] = np.arange(len(other), dtype=np.int32)
    columns = place[near.indices[one.latents, :n_listed]].ravel()
    cosines = near.cosines[one.latents, :n_listed].astype(np.float64).ravel()
    rows = np.repeat(np.arange(len(one), dtype=np.int32), n_listed)
    return _Edges(rows, columns, cosines)


def _pair_rest(
    a: Directions, b: Directions, rows: np.ndarray, free: np.ndarray, exact_up_to: int
) -> np.ndarray:
    """For each of some rows one of the free columns: the best where they are few, the best
    within as many at a time where they are not.
    """
    n_parts = max(1, math.ceil((len(rows) * len(free)) ** 0.5 / max(1, exact_up_to)))
    chosen = np.empty(len(rows), free.dtype)
    for part in range(n_parts):
        # Every so-many-th: a part has no fewer columns than rows, as the whole has not.
        those = slice(part, None, n_parts)
        some = free[those]
        costs = kernels.all_cosines(a.rows[rows[those]], b.rows[some])
        np.negative(costs, out=costs)
        chosen[those] = some[linear_sum_assignment(costs)[1]]
    return chosen
