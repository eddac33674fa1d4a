"""Labels exchanged between clusters: what the largest statistic is where nothing differs.

Axes: `n` rows, `c` clusters, `d_sae` latents.
"""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.features.cluster_robust import adjusted_difference
from fluoroscope.features.contrasts import MIN_CLUSTERS
from fluoroscope.features.multiple_tests import count_discoveries
from fluoroscope.features.row_tests import pooled_sd, side, welch
from fluoroscope.features.rows import Rows, cluster_labels, orthonormal_basis
from fluoroscope.features.score_test import Coins, LabelModel, score_test
from fluoroscope.features.sparse_columns import SparseColumns

Statistic = Literal["cohen_d", "adjusted_t", "score_z"]
"""A column of `contrasts`; its p are those of welch, adjusted and score."""

_Values = tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]
_Statistic = Callable[[int], _Values]


def split_by_cluster(
    cluster: Int[np.ndarray, " n"],
    share: float = 0.5,
    seed: int = 0,
    strata: Int[np.ndarray, " n"] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Rows of about `share` of the clusters, whole ones: those to find in, the rest to confirm in.

    The share is kept within every stratum as far as whole clusters allow, and over all of them.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share must be between 0 and 1, got {share}.")
    rows = Rows(np.zeros(len(cluster), bool), cluster, np.zeros((len(cluster), 0)), strata)
    n_clusters, index, row_strata = rows.indexed()
    of_cluster = np.zeros(n_clusters, int)
    of_cluster[index] = row_strata
    random = stream(seed, "split by cluster")
    # In a random order of strata and of clusters within them, every cluster that takes the
    # running total past a whole number is taken: each stratum gets its share, up to one cluster.
    shuffled = random.permutation(of_cluster.max(initial=0) + 1)[of_cluster]
    order = np.lexsort((random.random(n_clusters), shuffled))
    total = np.floor(share * np.arange(n_clusters + 1) + 0.5)
    is_taken = np.zeros(n_clusters, bool)
    is_taken[order] = np.diff(total) > 0
    return is_taken[index]


def shuffled_group(rows: Rows, seed: int, permutation: int) -> Bool[np.ndarray, " n"]:
    """Labels after an exchange between whole clusters within each stratum.

    Where labels vary within a cluster it hands on the whole sequence, in the order of its rows,
    to one of those nearest to it in length: each row takes the label at the same relative place,
    the last row the last. So what tells late rows from early ones still does, and neighbours stay
    as alike as they were. How many rows are in the group then changes a little.
    """
    n_clusters, cluster, strata = rows.indexed()
    random = stream(seed, "shuffled group", permutation)
    length = np.bincount(cluster, minlength=n_clusters)
    pool = np.zeros(n_clusters, int)
    pool[cluster] = strata
    if cluster_labels(rows) is None:
        pool = _of_like_length(pool, length, random)
    giver = np.empty(n_clusters, int)
    giver[np.argsort(pool, kind="stable")] = np.lexsort((random.random(n_clusters), pool))
    order = np.argsort(cluster, kind="stable")
    start = np.cumsum(length) - length
    place = np.empty(len(rows), int)
    place[order] = np.arange(len(rows)) - start[cluster[order]]
    last, givers_last = length[cluster] - 1, length[giver[cluster]] - 1
    from_end = (2 * (last - place) * givers_last + last) // (2 * np.maximum(last, 1))
    return rows.group[order][start[giver[cluster]] + givers_last - from_end]


def _of_like_length(
    stratum: Int[np.ndarray, " c"], length: Int[np.ndarray, " c"], random: np.random.Generator
) -> Int[np.ndarray, " c"]:
    """Clusters of a stratum in pools of `_POOL` neighbours in length; the last may be smaller."""
    order = np.lexsort((random.random(len(length)), length, stratum))
    ordered = stratum[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    pool = np.empty(len(order), int)
    pool[order] = ordered * len(order) + place // _POOL
    return pool


def permutation_null(
    latents: Mapping[str, csc_array],
    rows: Rows,
    n: int = 200,
    seed: int = 0,
    statistic: Statistic = "cohen_d",
    min_clusters: int = MIN_CLUSTERS,
) -> pl.DataFrame:
    """permutation, statistic, the `largest` |statistic| over all hook points, and `n_found`.

    `n_found` counts latents with q < 0.05 by the statistic's test: a test that holds finds any in
    at most 5 % of the permutations. Latents active in fewer than `min_clusters` clusters are
    left out, as in `contrasts`. Covariates stay with their rows; only labels move.
    """
    if statistic not in get_args(Statistic):
        raise ConfigError(f"statistic must be one of {get_args(Statistic)}, got {statistic!r}.")
    if not latents or n < 1:
        raise ConfigError(f"A null needs latents and permutations, got {len(latents)} and {n}.")
    rows.check_groups()
    shuffled = [rows.with_group(shuffled_group(rows, seed, i)) for i in range(n)]
    largest, n_tests = np.zeros(n), np.zeros(n, int)
    small: list[list[np.ndarray]] = [[] for _ in range(n)]
    n_clusters, cluster, _ = rows.indexed()
    make = _maker(rows, shuffled, statistic)
    for name, of in latents.items():
        columns = SparseColumns(of, cluster, n_clusters, name)
        is_tested = columns.varies & (columns.active_clusters >= min_clusters)
        compute = make(columns)
        for i in range(n):
            values, p = (column[is_tested] for column in compute(i))
            largest[i] = max(largest[i], np.nanmax(np.abs(values), initial=0))
            n_tests[i] += int((~np.isnan(p)).sum())
            small[i].append(p[p < _ALPHA])
    return pl.DataFrame(
        {
            "permutation": np.arange(n),
            "statistic": [statistic] * n,
            "largest": largest,
            "n_found": [
                count_discoveries(np.concatenate(p), int(tests), _ALPHA)
                for p, tests in zip(small, n_tests, strict=True)
            ],
        }
    )


def family_wise(found: pl.DataFrame, null: pl.DataFrame) -> Float[np.ndarray, " rows"]:
    """For each row of `contrasts` a p that holds for all latents of all hook points at once.

    The share of permutations (the observed labels being one of them) whose largest statistic is
    at least as large: single-step max T (Westfall and Young 1993). NaN for what is not tested.
    """
    values = np.abs(found[null["statistic"][0]].to_numpy())
    largest = np.sort(null["largest"].to_numpy())
    n_as_large = len(largest) - np.searchsorted(largest, values - _TIE * values, side="left")
    is_tested = found["is_tested"].to_numpy() & ~np.isnan(values)
    return np.where(is_tested, (n_as_large + 1) / (len(largest) + 1), np.nan)


def _maker(
    rows: Rows, shuffled: list[Rows], statistic: Statistic
) -> Callable[[SparseColumns], _Statistic]:
    """What computes the statistic and its p of a hook point's latents in one permutation."""
    match statistic:
        case "cohen_d":
            return lambda columns: lambda i: _cohen_d(columns, shuffled[i].group)
        case "adjusted_t":
            basis = orthonormal_basis(rows.covariates)

            def adjusted(columns: SparseColumns) -> _Statistic:
                in_basis = columns.project(basis)

                def compute(i: int) -> _Values:
                    found = adjusted_difference(columns, shuffled[i].group, basis, in_basis)
                    return found.t, found.p

                return compute

            return adjusted
        case "score_z":
            model = LabelModel(rows)
            coins = [model.coins(each) for each in shuffled]
            return lambda columns: lambda i: _score_z(columns, coins[i])


def _cohen_d(columns: SparseColumns, group: Bool[np.ndarray, " n"]) -> _Values:
    inside, outside = side(columns, group), side(columns, ~group)
    d = (inside.mean - outside.mean) / pooled_sd(inside, outside)
    return d, welch(inside, outside)[2]


def _score_z(columns: SparseColumns, coins: Coins | None) -> _Values:
    score = score_test(columns, coins)
    return score.z, score.p


_ALPHA = 0.05
_TIE = 1e-9
_POOL = 10
