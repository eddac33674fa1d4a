"""Rows that a contrast compares: their group, the cluster they belong to, what else they are.

Axes: `n` rows (decisions, say), `k` covariates, `c` clusters (games).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from fluoroscope.core.errors import ConfigError

_NO_MORE = 1e-9


@dataclass(frozen=True)
class Rows:
    """What is known of each row besides its latents."""

    group: Bool[np.ndarray, " n"]
    """Whether the row is in the group of interest ("in"), against all others ("out")."""

    cluster: Int[np.ndarray, " n"]
    """Rows of one cluster are not independent of each other."""

    covariates: Float[np.ndarray, "n k"]
    """Numbers to adjust for; k may be 0, and columns may be constant or collinear."""

    strata: Int[np.ndarray, " n"] | None = None
    """The condition, one for a cluster; labels are only ever exchanged within it."""

    def __post_init__(self) -> None:
        n = len(self.group)
        for name in ("cluster", "covariates", "strata"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ConfigError(f"group has {n} rows, but {name} has {len(value)}.")
        is_finite = np.isfinite(self.covariates).all(axis=0)
        if not is_finite.all():
            raise ConfigError(
                f"Covariate {int(np.argmin(is_finite))} has a NaN or an infinity; leave out its "
                "rows, or fill it and add a column that says where."
            )
        _, clusters, strata = self.indexed()
        if len(np.unique(np.stack([clusters, strata]), axis=1).T) != clusters.max(initial=-1) + 1:
            raise ConfigError("The rows of a cluster must all be of one stratum.")

    def __len__(self) -> int:
        return len(self.group)

    def take(self, chosen: Shaped[np.ndarray, " m"]) -> "Rows":
        """Those rows that a mask or indices choose."""
        strata = None if self.strata is None else self.strata[chosen]
        return Rows(self.group[chosen], self.cluster[chosen], self.covariates[chosen], strata)

    def with_group(self, group: Bool[np.ndarray, " n"]) -> "Rows":
        """The same rows with other labels."""
        return Rows(group, self.cluster, self.covariates, self.strata)

    def indexed(self) -> tuple[int, Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """The number of clusters, and cluster and stratum of each row, counted from 0."""
        names, cluster = np.unique(self.cluster, return_inverse=True)
        strata = np.zeros(len(self), int) if self.strata is None else self.strata
        return len(names), cluster, np.unique(strata, return_inverse=True)[1]

    def check_groups(self) -> None:
        """Raises `ConfigError` where there is nothing to compare."""
        n_in = int(self.group.sum())
        if 0 < n_in < len(self):
            return
        empty = "out of" if n_in else "in"
        raise ConfigError(f"A contrast needs rows on both sides, but none is {empty} the group.")


def cluster_labels(rows: Rows) -> Bool[np.ndarray, " c"] | None:
    """The label of each cluster in order of their names; None where one has rows of both."""
    n_clusters, cluster, _ = rows.indexed()
    n_in = np.bincount(cluster, rows.group, n_clusters)
    is_whole = (n_in == 0) | (n_in == np.bincount(cluster, minlength=n_clusters))
    return n_in > 0 if is_whole.all() else None


def orthonormal_basis(
    covariates: Float[np.ndarray, "n k"],
) -> Float[np.ndarray, "n rank"]:
    """Of the space of a constant and the covariates; what others already say adds no column."""
    n = len(covariates)
    constant = np.full((n, 1), n**-0.5)
    centred = covariates - covariates.mean(axis=0)
    scale = np.linalg.norm(covariates, axis=0)
    norm = np.linalg.norm(centred, axis=0)
    varies = norm > _NO_MORE * scale
    if not varies.any():
        return constant
    own, sizes, _ = np.linalg.svd(centred[:, varies] / norm[varies], full_matrices=False)
    return np.hstack([constant, own[:, sizes > _NO_MORE]])
