"""Latents of many rows as sparse columns, with what tests of any grouping of the rows share.

Nothing here depends on the labels, so that the labels can be exchanged many times at the price of
a few sparse products. Sums are in float64.

Axes: `n` rows, `d_sae` latents, `c` clusters, `nonzero` active entries, in order of latent and row.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array

from fluoroscope.core.errors import ConfigError

EVEN = 1e-12
"""Standard deviations below this share of the mean are rounding, not variance."""


class Ranks(NamedTuple):
    """Midranks of a latent among all rows, in which the zeros are one great tie (Mann-Whitney)."""

    active: Float[np.ndarray, " nonzero"]
    zero: Float[np.ndarray, " d_sae"]
    ties: Float[np.ndarray, " d_sae"]
    """Sum of t^3 - t over all ties of t rows."""


class SparseColumns:
    """Active entries of `latents`, and the cluster of each row, 0 to `n_clusters` - 1."""

    def __init__(
        self, latents: csc_array, cluster: Int[np.ndarray, " n"], n_clusters: int, name: str = ""
    ) -> None:
        latents = _checked(latents, len(cluster), name)
        self.n, self.d_sae = len(cluster), len(latents.indptr) - 1
        self.cluster, self.n_clusters = cluster, n_clusters
        self.values: Float[np.ndarray, " nonzero"] = latents.data.astype(np.float64)
        self.row: Int[np.ndarray, " nonzero"] = latents.indices
        self.starts: Int[np.ndarray, " d_sae+1"] = latents.indptr
        self.n_active: Int[np.ndarray, " d_sae"] = np.diff(latents.indptr)
        self.latent: Int[np.ndarray, " nonzero"] = np.repeat(np.arange(self.d_sae), self.n_active)

    def project(self, weights: Float[np.ndarray, "n w"]) -> Float[np.ndarray, "d_sae w"]:
        """Sum over rows of each latent times each column of weights."""
        return self.by_row @ weights

    def sum_active(self, entries: Float[np.ndarray, " nonzero"]) -> Float[np.ndarray, " d_sae"]:
        """Sum of numbers that belong to active entries, latent by latent."""
        return np.bincount(self.latent, entries, self.d_sae).astype(np.float64)

    def by_cluster(self, entries: Float[np.ndarray, " nonzero"]) -> csr_array:
        """Sums of such numbers over the rows of each cluster: sparse [d_sae, c]."""
        order, first, cluster, starts = self._segments
        sums = np.add.reduceat(entries[order], first) if len(first) else np.zeros(0)
        return csr_array((sums, cluster, starts), shape=(self.d_sae, self.n_clusters))

    @cached_property
    def cluster_means(self) -> csr_array:
        """Means over the rows of each cluster: sparse [d_sae, c]."""
        length = np.bincount(self.cluster, minlength=self.n_clusters)
        return self.by_cluster(self.values / length[self.cluster[self.row]])

    @cached_property
    def active_clusters(self) -> Int[np.ndarray, " d_sae"]:
        """Clusters with at least one row in which the latent is active."""
        return np.diff(self._segments[3])

    @cached_property
    def varies(self) -> Bool[np.ndarray, " d_sae"]:
        """Latents that do not have the same value in all rows."""
        mean = self.sum_active(self.values) / self.n
        squares = self.sum_active((self.values - mean[self.latent]) ** 2)
        squares += (self.n - self.n_active) * mean**2
        return squares > self.n * (EVEN * mean) ** 2

    @cached_property
    def ranks(self) -> Ranks:
        # Two sorts of plain numbers take a tenth of the time of one by latent and value.
        levels, level = np.unique(self.values, return_inverse=True)
        order = np.argsort(self.latent * max(len(levels), 1) + level)
        latent, values = self.latent[order], self.values[order]
        is_first = np.ones(len(values), bool)
        is_first[1:] = (latent[1:] != latent[:-1]) | (values[1:] != values[:-1])
        first = np.flatnonzero(is_first)
        length = np.diff(np.append(first, len(values)))
        n_zero = (self.n - self.n_active).astype(np.float64)
        middle = first - self.starts[latent[first]] + (length + 1) / 2 + n_zero[latent[first]]
        active = np.empty(len(values))
        active[order] = np.repeat(middle, length)
        of_ties = length.astype(np.float64) ** 3 - length
        ties = np.bincount(latent[first], of_ties, self.d_sae) + n_zero**3 - n_zero
        return Ranks(active, (n_zero + 1) / 2, ties)

    @cached_property
    def by_row(self) -> csr_array:
        """The latents once more, as sparse [d_sae, n]."""
        return csr_array((self.values, self.row, self.starts), shape=(self.d_sae, self.n))

    @cached_property
    def _segments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Entries in order of latent and cluster; where each pair begins, and whose it is."""
        key = self.latent * self.n_clusters + self.cluster[self.row]
        order = np.argsort(key, kind="stable")
        pairs, first = np.unique(key[order], return_index=True)
        latent, cluster = np.divmod(pairs, self.n_clusters)
        starts = np.searchsorted(latent, np.arange(self.d_sae + 1))
        return order, first, cluster, starts


def _checked(latents: csc_array, n: int, name: str) -> csc_array:
    """The same numbers in one form: rows in order, no entry twice, no zero among the entries."""
    of = f" of {name}" if name else ""
    if latents.shape != (n, len(latents.indptr) - 1):
        raise ConfigError(
            f"The latents{of} are of shape {latents.shape}, but the group has {n} rows."
        )
    if not np.isfinite(latents.data).all():
        raise ConfigError(f"The latents{of} have a NaN or an infinity.")
    if (latents.data < 0).any():
        raise ConfigError(
            f"The latents{of} have negative values, as no SAE's have: are these hidden dimensions?"
        )
    if not (latents.has_canonical_format and latents.data.all()):
        latents = latents.copy()
        latents.sum_duplicates()
        latents.eliminate_zeros()
    return latents
