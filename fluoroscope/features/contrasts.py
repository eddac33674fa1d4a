"""Which latents differ between two groups of rows, and is it more than chance and covariates?

Rows (decisions) come in clusters (games); their group may go along with other things (the
balance), so each latent gets plain statistics, clustered ones and adjusted ones beside each other:

- `p_welch`, `p_rank`, `p_rate` take rows as independent. They describe; where a cluster has
  several rows they find too much.
- `p_clustered`, `p_adjusted` have errors that respect clusters, without and with covariates. They
  trust the variance that they see in each group, and so find too much in sparse latents of a
  small group.
- `p_score` takes the labels as coins with known chances, given strata and covariates, and holds
  in the tails as well. What a study calls different is by this one.

`benchmarks/null_contrasts.py` measures how often each finds something where nothing is.
All is vectorised over latents and sparse; sums are in float64.

Axes: `n` rows, `d_sae` latents.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.sparse import csc_array

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.cluster_robust import (
    adjusted_difference,
    clustered_difference,
    is_explained,
)
from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.features.row_tests import pooled_sd, ranks, rate_p, side, welch
from fluoroscope.features.rows import Rows, orthonormal_basis
from fluoroscope.features.score_test import Coins, LabelModel, score_test
from fluoroscope.features.sparse_columns import SparseColumns

__all__ = [
    "MIN_CLUSTERS",
    "TESTS",
    "Rows",
    "contrast",
    "contrasts",
    "top_latents",
]

TESTS = ("welch", "rank", "rate", "clustered", "adjusted", "score")
"""Each has a column p_... and, in `contrasts`, q_..."""

MIN_CLUSTERS = 10
"""Clusters in which a latent must be active to be tested along with the others."""


def contrast(latents: csc_array, rows: Rows) -> pl.DataFrame:
    """One row a latent of one hook point.

    `n_in`, `n_out` rows; means, standard deviations (ddof 0) and shares of active rows of both
    groups; `clusters_active`, the clusters in which the latent is active at all.

    `cohen_d` (pooled, ddof 1) with a 95 % interval `d_low`, `d_high` that respects clusters, and
    `p_clustered` of the difference of means; `t`, `df`, `p_welch`; `auc`, the share of in/out
    pairs in which in is larger (ties half), and Mann and Whitney's `p_rank`; `rate_difference`
    and `p_rate` of the two-proportion z test with pooled variance.

    `adjusted_d`: the coefficient of the group in OLS on group and covariates, over the pooled
    standard deviation, so that it is on the scale of Cohen's d; its `adjusted_se` (CR1),
    `adjusted_t` and `p_adjusted`. `score_z` and `p_score`: see `features/score_test.py`; NaN where
    the covariates foretell all labels.

    A latent that is the same in all rows (a dead one, say) has NaN for all that compares.
    """
    return _contrast(latents, rows, _Design.of(rows))


def contrasts(
    latents: Mapping[str, csc_array],
    rows: Rows,
    alpha: float = 0.05,
    min_clusters: int = MIN_CLUSTERS,
) -> pl.DataFrame:
    """`contrast` of every hook point, with q (Benjamini and Hochberg) over all of them together.

    Latents that are active in fewer than `min_clusters` clusters (whichever group these are of)
    are described but not tested: they could hardly reach a small p, and cost the others power.
    `n_tests` is how many are tested. `is_different`: the q of the score test is below `alpha`.
    """
    if not latents:
        raise ConfigError("There are no latents to contrast: no hook point was given.")
    design = _Design.of(rows)
    parts = [
        _contrast(of, rows, design, point).select(pl.lit(point).alias("hook_point"), pl.all())
        for point, of in latents.items()
    ]
    found = pl.concat(parts)
    is_tested = pl.col("cohen_d").is_not_nan() & (pl.col("clusters_active") >= min_clusters)
    found = found.with_columns(is_tested=is_tested)
    mask = found["is_tested"].to_numpy()
    q = [
        pl.Series(f"q_{test}", benjamini_hochberg(np.where(mask, found[f"p_{test}"], np.nan)))
        for test in TESTS
    ]
    return found.with_columns(*q, n_tests=pl.lit(int(mask.sum()))).with_columns(
        is_different=pl.col("q_score").fill_nan(1) < alpha
    )


def top_latents(found: pl.DataFrame, n: int, by: str = "cohen_d") -> pl.DataFrame:
    """The `n` latents of each hook point with the largest |`by`|, largest first; ties by latent.

    Never those whose statistic is missing.
    """
    if by not in found.columns or not found.schema[by].is_numeric():
        raise ConfigError(f"Latents cannot be ordered by {by!r}; there is {found.columns}.")
    known = found.filter(pl.col(by).is_not_null() & pl.col(by).is_not_nan())
    ordered = known.sort(pl.col(by).abs(), "latent", descending=[True, False])
    if "hook_point" not in found.columns:
        return ordered.head(n)
    # In the order of the hook points as they were found, which a sort by name would not keep.
    points = found["hook_point"].unique(maintain_order=True)
    return pl.concat([ordered.filter(pl.col("hook_point") == point).head(n) for point in points])


class _Design(NamedTuple):
    """What all hook points share."""

    basis: Float[np.ndarray, "n rank"]
    coins: Coins | None

    @classmethod
    def of(cls, rows: Rows) -> "_Design":
        rows.check_groups()
        basis = orthonormal_basis(rows.covariates)
        if is_explained(rows.group, basis):
            raise ConfigError(
                "The covariates say all of the group, so that nothing is left of it when they are "
                "adjusted for; leave out those that define it."
            )
        return cls(basis, LabelModel(rows).coins(rows))


def _contrast(latents: csc_array, rows: Rows, design: _Design, name: str = "") -> pl.DataFrame:
    n_clusters, cluster, _ = rows.indexed()
    columns = SparseColumns(latents, cluster, n_clusters, name)
    inside, outside = side(columns, rows.group), side(columns, ~rows.group)
    sd = pooled_sd(inside, outside)
    t, df, p_welch = welch(inside, outside)
    auc, p_rank = ranks(columns, rows.group)
    clustered = clustered_difference(columns, rows.group, inside, outside)
    in_basis = columns.project(design.basis)
    adjusted = adjusted_difference(columns, rows.group, design.basis, in_basis)
    score = score_test(columns, design.coins)
    return pl.DataFrame(
        {
            "latent": np.arange(columns.d_sae),
            "n_in": np.full(columns.d_sae, inside.n),
            "n_out": np.full(columns.d_sae, outside.n),
            "clusters_active": columns.active_clusters.astype(np.int64),
            "mean_in": inside.mean,
            "mean_out": outside.mean,
            "std_in": inside.std,
            "std_out": outside.std,
            "rate_in": inside.rate,
            "rate_out": outside.rate,
            "cohen_d": (inside.mean - outside.mean) / sd,
            "d_low": clustered.d_low,
            "d_high": clustered.d_high,
            "p_clustered": clustered.p,
            "t": t,
            "df": df,
            "p_welch": p_welch,
            "auc": auc,
            "p_rank": p_rank,
            "rate_difference": inside.rate - outside.rate,
            "p_rate": rate_p(inside, outside),
            "adjusted_d": adjusted.value / sd,
            "adjusted_se": adjusted.error / sd,
            "adjusted_t": adjusted.t,
            "p_adjusted": adjusted.p,
            "score_z": score.z,
            "p_score": score.p,
        }
    )
