"""Does a latent say which clusters are of the group? A score test by saddlepoint approximation.

One observation a cluster: its label, and the mean of the latent over its rows. Given covariates
the label is a coin whose chance a logistic regression knows (on the clusters' mean covariates,
their strata and the log of their length), and the latent is taken as it is. So nothing is
assumed of the latents: they may be sparse, skewed and correlated, within a cluster at will. What
is approximated is a sum of coins, well into the tails that a million tests need and where the
normal and Student's t go wrong by orders of magnitude when the group is small: this is the test
that genetics uses for rare variants in few cases (Dey et al. 2017, AJHG 101:37; the tail is
Barndorff-Nielsen's 1990 formula). Where a latent is not active, its covariates' part is taken as
normal, which keeps all sums sparse (the "fast" version there).

Axes: `c` clusters, `d_sae` latents, `s` active pairs of latent and cluster, `rank`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.special import expit, logit, ndtr

from fluoroscope.features.rows import Rows, cluster_labels, orthonormal_basis
from fluoroscope.features.sparse_columns import SparseColumns

NORMAL_BELOW = 2.0
"""|z| up to which the normal is good enough, as in Dey et al."""

_CERTAIN = 1e-12
"""p (1 - p) below which a label is no coin."""

_ROUNDING = 1e-10
_NEWTON_STEPS = 60


class Score(NamedTuple):
    """The score over its standard error, and its two-sided p."""

    z: Float[np.ndarray, " d_sae"]
    p: Float[np.ndarray, " d_sae"]


class Coins(NamedTuple):
    """Labels of clusters, the chances they had, and the space that the regression chose from."""

    label: Bool[np.ndarray, " c"]
    chance: Float[np.ndarray, " c"]
    design: Float[np.ndarray, "c rank"]


class LabelModel:
    """The regression of labels, for one labelling after the other.

    Clusters of a stratum that is all in or all out tell nothing, as their label was no coin; an
    exchange of labels within strata leaves them as they are.
    """

    def __init__(self, rows: Rows) -> None:
        self.label = cluster_labels(rows)
        n_clusters, cluster, row_strata = rows.indexed()
        length = np.bincount(cluster, minlength=n_clusters)
        strata = np.zeros(n_clusters, int)
        strata[cluster] = row_strata
        self._is_open = np.zeros(n_clusters, bool)
        if self.label is not None:
            n_in = np.bincount(strata, self.label)
            self._is_open = ((n_in > 0) & (n_in < np.bincount(strata)))[strata]
        covariates = [np.bincount(cluster, column, n_clusters) for column in rows.covariates.T]
        one_hot = np.eye(strata.max(initial=0) + 1)[strata]
        columns = [np.log(length), *(column / length for column in covariates), one_hot]
        self._design = np.zeros((n_clusters, 0))
        if self._is_open.any():
            design = orthonormal_basis(np.column_stack(columns)[self._is_open])
            self._design = np.zeros((n_clusters, design.shape[1]))
            self._design[self._is_open] = design * len(design) ** 0.5

    def coins(self, label: Bool[np.ndarray, " c"] | None) -> Coins | None:
        """None where labels vary within clusters, or nothing of them is left to chance."""
        if label is None:
            return None
        chance = label.astype(np.float64)
        chance[self._is_open] = _chances(chance[self._is_open], self._design[self._is_open])
        is_left = (chance * (1 - chance)).sum() >= 1
        return Coins(label, chance, self._design) if is_left else None


def score_test(columns: SparseColumns, coins: Coins | None) -> Score:
    """NaN for latents that are the same in all rows, and for all where there are no coins."""
    if coins is None:
        return Score(*np.full((2, columns.d_sae), np.nan))
    length = np.bincount(columns.cluster, minlength=columns.n_clusters)
    means = columns.by_cluster(columns.values / length[columns.cluster[columns.row]])
    weight = coins.chance * (1 - coins.chance)
    orthonormal, _ = np.linalg.qr(coins.design * np.sqrt(weight)[:, None])
    fit = means @ (orthonormal * np.sqrt(weight)[:, None])
    score = means @ (coins.label - coins.chance)
    raw = means.multiply(means) @ weight
    variance = raw - (fit**2).sum(axis=1)
    variance = np.where(columns.varies & (variance > _ROUNDING * raw), variance, np.nan)
    z = score / np.sqrt(variance)
    size = np.maximum(np.abs(score) - _smallest(means) / 2, 0)
    p = 2 * ndtr(-size / np.sqrt(variance))
    far = np.flatnonzero(np.abs(z) > NORMAL_BELOW)
    if len(far):
        back = orthonormal / np.sqrt(np.maximum(weight, _CERTAIN))[:, None]
        sums = _Sums.of(means[far], fit[far], back, coins.chance, variance[far])
        p[far] = np.minimum(sums.tail(size[far]) + sums.tail(-size[far]), 1)
    return Score(z, p)


def _smallest(means: csr_array) -> Float[np.ndarray, " d_sae"]:
    """The smallest active mean of each latent, 0 for a dead one.

    Half of it is taken off the score: a correction for continuity, which matters where a latent
    is active in few clusters and alike in them, so that its sums come in steps of this size.
    """
    n_active = np.diff(means.indptr)
    smallest, is_active = np.zeros(len(n_active)), n_active > 0
    if is_active.any():
        smallest[is_active] = np.minimum.reduceat(means.data, means.indptr[:-1][is_active])
    return smallest


class _Sums(NamedTuple):
    """For some latents: the distribution of sum over clusters of (coin - chance) x adjusted."""

    latent: Int[np.ndarray, " s"]
    adjusted: Float[np.ndarray, " s"]
    """The latent's mean in a cluster where it is active, less what the covariates explain."""

    chance: Float[np.ndarray, " s"]
    variance: Float[np.ndarray, " d_sae"]
    """Of the whole sum."""

    rest: Float[np.ndarray, " d_sae"]
    """Of the clusters in which the latent is not active."""

    @classmethod
    def of(
        cls,
        means: csr_array,
        fit: Float[np.ndarray, "d_sae rank"],
        back: Float[np.ndarray, "c rank"],
        chance: Float[np.ndarray, " c"],
        variance: Float[np.ndarray, " d_sae"],
    ) -> "_Sums":
        latent = np.repeat(np.arange(len(fit)), np.diff(means.indptr))
        is_coin = (chance * (1 - chance) > _CERTAIN)[means.indices]
        latent, cluster = latent[is_coin], means.indices[is_coin]
        adjusted = means.data[is_coin]
        # Column by column: all at once would need `rank` numbers for every active pair.
        for k in range(fit.shape[1]):
            adjusted -= fit[latent, k] * back[cluster, k]
        chances = chance[cluster]
        active = np.bincount(latent, adjusted**2 * chances * (1 - chances), len(fit))
        return cls(latent, adjusted, chances, variance, np.maximum(variance - active, 0))

    def tail(self, at: Float[np.ndarray, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
        """Chance of a sum beyond `at`, away from 0 on its side."""
        tilt = self._tilt(at)
        _, bend = self._slopes(tilt)
        gain = tilt * at - self._cumulant(tilt)
        w = np.sqrt(np.maximum(2 * gain, 0))
        v = np.abs(tilt) * np.sqrt(bend)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = ndtr(-(w + np.log(v / w) / w))
        # Beyond what the coins can give there is nothing, and the tilt runs away.
        return np.where(np.isfinite(found), found, 0)

    def _tilt(self, at: Float[np.ndarray, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
        """Where the cumulant's slope is `at`: Newton, kept inside a shrinking bracket."""
        side = np.sign(at)
        low, high = np.zeros(len(at)), np.full(len(at), np.inf)
        size = np.abs(at) / self.variance
        for _ in range(_NEWTON_STEPS):
            slope, bend = self._slopes(side * size)
            missing = np.abs(at) - side * slope
            low = np.where(missing >= 0, size, low)
            high = np.where(missing <= 0, size, high)
            if (np.abs(missing) <= _ROUNDING * np.abs(at)).all():
                break
            following = size + missing / np.maximum(bend, np.finfo(float).tiny)
            following = np.minimum(following, 4 * size)
            is_outside = (following <= low) | (following >= high)
            halved = np.where(np.isinf(high), 2 * size, (low + high) / 2)
            size = np.where(is_outside, halved, following)
        return side * size

    def _slopes(
        self, tilt: Float[np.ndarray, " d_sae"]
    ) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
        """First and second derivative of the cumulant generating function."""
        tilted = expit(logit(self.chance) + tilt[self.latent] * self.adjusted)
        slope = self._sum(self.adjusted * (tilted - self.chance))
        bend = self._sum(self.adjusted**2 * tilted * (1 - tilted))
        return slope + tilt * self.rest, bend + self.rest

    def _cumulant(self, tilt: Float[np.ndarray, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
        push = tilt[self.latent] * self.adjusted
        log_mean = np.logaddexp(np.log1p(-self.chance), np.log(self.chance) + push)
        return self._sum(log_mean - self.chance * push) + tilt**2 * self.rest / 2

    def _sum(self, entries: Float[np.ndarray, " s"]) -> Float[np.ndarray, " d_sae"]:
        return np.bincount(self.latent, entries, len(self.rest)).astype(np.float64)


def _chances(
    label: Float[np.ndarray, " c"], design: Float[np.ndarray, "c rank"]
) -> Float[np.ndarray, " c"]:
    """Logistic regression by Newton's method; a trace of ridge where classes are separable.

    The columns of `design` are orthogonal, with a mean square of one.
    """
    ridge = 1e-6 * np.eye(design.shape[1])
    beta = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = expit(design @ beta)
        slope = design.T @ (label - chance) - ridge @ beta
        bend = (design * (chance * (1 - chance))[:, None]).T @ design + ridge
        step = np.linalg.solve(bend, slope)
        beta = beta + step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < 1e-10:
            break
    return expit(design @ beta)
