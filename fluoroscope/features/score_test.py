"""Does a latent say which games are of the group? A score test by saddlepoint approximation.

Where all rows of a cluster have one label, a unit is a cluster: its label, and the mean of the
latent over its rows. Where labels vary within clusters, a unit is a row. Given covariates the
label of a unit is a coin whose chance a logistic regression knows (on covariates, strata and the
log of the cluster's length), and the latent is taken as it is. So nothing is assumed of the
latents: they may be sparse, skewed and correlated, within a cluster at will. What is approximated
is a sum of coins, well into the tails that a million tests need, where the normal and Student's t
are wrong by orders of magnitude when the group is small: this is the test that genetics uses for
rare variants in few cases (Dey et al. 2017, AJHG 101:37; tails by Barndorff-Nielsen 1990). The
units in which a latent is not active are taken as normal together, which keeps all sums sparse
(the "fast" version there).

Coins of rows agree within a cluster; their correlation is estimated from the labels alone, and
with the latent's own sums over clusters says how much more the score varies than that of
independent coins (as the variance ratio of Zhou et al. 2018, Nature Genetics 50:1335). Its log
tail is then that of proportionally fewer and larger coins.

Axes: `u` units, `c` clusters, `n` rows, `d_sae` latents, `s` active pairs of latent and unit,
`rank` columns of the design.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.special import expit, logit, ndtr

from fluoroscope.features.cluster_robust import cluster_squares, sum_rows
from fluoroscope.features.rows import Rows, cluster_labels, orthonormal_basis
from fluoroscope.features.sparse_columns import SparseColumns

NORMAL_BELOW = 2.0
"""|z| up to which the normal is good enough, as in Dey et al."""

_CERTAIN = 1e-12
"""p (1 - p) below which a label is no coin."""

_ROUNDING = 1e-10
_RIDGE = 1e-9
_CONVERGED = 1e-8
_NEWTON_STEPS = 60


class Score(NamedTuple):
    """The score over its standard error, and its two-sided p."""

    z: Float[np.ndarray, " d_sae"]
    p: Float[np.ndarray, " d_sae"]


class Coins(NamedTuple):
    """Labels of units, the chances they had, and the space that the regression chose from."""

    label: Bool[np.ndarray, " u"]
    chance: Float[np.ndarray, " u"]
    design: Float[np.ndarray, "u rank"]
    agreement: float | None
    """Correlation of the labels of rows of a cluster; None where clusters are the units."""


class LabelModel:
    """The regression of labels, for one exchange of labels after the other.

    Units of a stratum that is all in or all out tell nothing, as their label was no coin.
    """

    def __init__(self, rows: Rows) -> None:
        n_clusters, cluster, strata = rows.indexed()
        length = np.bincount(cluster, minlength=n_clusters)
        labels = cluster_labels(rows)
        self._cluster = None if labels is not None else cluster
        covariates, log_length = rows.covariates, np.log(length)[cluster]
        if labels is not None:
            _, first = np.unique(cluster, return_index=True)
            strata, log_length = strata[first], log_length[first]
            sums = [np.bincount(cluster, column, n_clusters) for column in covariates.T]
            covariates = np.stack([column / length for column in sums], axis=1) if sums else None
        labels = rows.group if labels is None else labels
        n_in = np.bincount(strata, labels)
        self._is_open = ((n_in > 0) & (n_in < np.bincount(strata)))[strata]
        parts = [log_length] if covariates is None else [covariates, log_length]
        self._design, self._penalty = _design(np.column_stack(parts), strata, self._is_open)

    def coins(self, rows: Rows) -> Coins | None:
        """Of these rows with whatever labels; None where nothing is left to chance."""
        label = cluster_labels(rows) if self._cluster is None else rows.group
        if label is None or self._is_open.sum() <= self._design.shape[1]:
            return None
        chance = label.astype(np.float64)
        chance[self._is_open] = _chances(
            chance[self._is_open], self._design[self._is_open], self._penalty
        )
        if (chance * (1 - chance)).sum() < 1:
            return None
        agreement = None
        if self._cluster is not None:
            agreement = _agreement(label, chance, self._cluster)
        return Coins(label, chance, self._design, agreement)


def score_test(columns: SparseColumns, coins: Coins | None) -> Score:
    """NaN for latents that are the same in all rows, and for all where there are no coins."""
    if coins is None:
        return Score(*np.full((2, columns.d_sae), np.nan))
    values = columns.by_row if coins.agreement is not None else columns.cluster_means
    weight = coins.chance * (1 - coins.chance)
    orthonormal, _ = np.linalg.qr(coins.design * np.sqrt(weight)[:, None])
    fit = values @ (orthonormal * np.sqrt(weight)[:, None])
    back = orthonormal / np.sqrt(np.maximum(weight, _CERTAIN))[:, None]
    surprise = coins.label - coins.chance
    score = values @ surprise - fit @ (back.T @ surprise)
    raw = values.multiply(values) @ weight
    variance = raw - (fit**2).sum(axis=1)
    variance = np.where(columns.varies & (variance > _ROUNDING * raw), variance, np.nan)
    inflation = _inflation(columns, coins, weight, orthonormal, fit, variance)
    error = np.sqrt(inflation * variance)
    size = np.maximum(np.abs(score) - _smallest(values) / 2, 0)
    p = 2 * ndtr(-size / error)
    far = np.flatnonzero(np.abs(score) > NORMAL_BELOW * error)
    if len(far):
        sums = _Sums.of(values[far], fit[far], back, coins.chance, variance[far], inflation[far])
        p[far] = np.minimum(sums.tail(size[far]) + sums.tail(-size[far]), 1)
    return Score(score / error, p)


def _inflation(
    columns: SparseColumns,
    coins: Coins,
    weight: Float[np.ndarray, " u"],
    orthonormal: Float[np.ndarray, "u rank"],
    fit: Float[np.ndarray, "d_sae rank"],
    variance: Float[np.ndarray, " d_sae"],
) -> Float[np.ndarray, " d_sae"]:
    """How many times the variance of the score is that of independent coins of known chance.

    What the regression spent makes labels look less random than they were: without covariates
    this is the n / (n - strata) of an exchange within strata.
    """
    of_cluster = weight > 0 if coins.agreement is None else columns.cluster[weight > 0]
    n_open = of_cluster.sum() if coins.agreement is None else len(np.unique(of_cluster))
    spent = n_open / max(n_open - coins.design.shape[1], 1)
    if not coins.agreement:
        return np.full(len(variance), spent)
    scaled = np.sqrt(weight)
    active = columns.by_cluster(columns.values * scaled[columns.row])
    together = cluster_squares(active, -sum_rows(columns, orthonormal), fit)
    return spent * (1 + coins.agreement * np.maximum(together / variance - 1, 0))


def _smallest(values: csr_array) -> Float[np.ndarray, " d_sae"]:
    """The smallest active value of each latent, 0 for a dead one.

    Half of it is taken off the score: a correction for continuity, which matters where a latent
    is active in few units and alike in them, so that its sums come in steps of this size.
    """
    n_active = np.diff(values.indptr)
    smallest, is_active = np.zeros(len(n_active)), n_active > 0
    if is_active.any():
        smallest[is_active] = np.minimum.reduceat(values.data, values.indptr[:-1][is_active])
    return smallest


class _Sums(NamedTuple):
    """For some latents: the distribution of sum over units of (coin - chance) x adjusted."""

    latent: Int[np.ndarray, " s"]
    adjusted: Float[np.ndarray, " s"]
    """The latent in a unit where it is active, less what the covariates explain."""

    chance: Float[np.ndarray, " s"]
    variance: Float[np.ndarray, " d_sae"]
    """Of the whole sum."""

    rest: Float[np.ndarray, " d_sae"]
    """Of the units in which the latent is not active."""

    inflation: Float[np.ndarray, " d_sae"]

    @classmethod
    def of(
        cls,
        values: csr_array,
        fit: Float[np.ndarray, "d_sae rank"],
        back: Float[np.ndarray, "u rank"],
        chance: Float[np.ndarray, " u"],
        variance: Float[np.ndarray, " d_sae"],
        inflation: Float[np.ndarray, " d_sae"],
    ) -> "_Sums":
        latent = np.repeat(np.arange(len(fit)), np.diff(values.indptr))
        is_coin = (chance * (1 - chance) > _CERTAIN)[values.indices]
        latent, unit = latent[is_coin], values.indices[is_coin]
        adjusted = values.data[is_coin]
        # Column by column: all at once would need `rank` numbers for every active pair.
        for k in range(fit.shape[1]):
            adjusted -= fit[latent, k] * back[unit, k]
        chances = chance[unit]
        active = np.bincount(latent, adjusted**2 * chances * (1 - chances), len(fit))
        return cls(latent, adjusted, chances, variance, np.maximum(variance - active, 0), inflation)

    def tail(self, at: Float[np.ndarray, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
        """Chance of a sum beyond `at`, away from 0 on its side."""
        tilt = self._tilt(at)
        _, bend = self._slopes(tilt)
        gain = tilt * at - self._cumulant(tilt)
        # Fewer and larger coins: the cumulant of phi times x is that of x over phi.
        w = np.sqrt(np.maximum(2 * gain, 0) / self.inflation)
        v = np.abs(tilt) * np.sqrt(bend / self.inflation)
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


def _design(
    covariates: Float[np.ndarray, "u k"],
    strata: Int[np.ndarray, " u"],
    is_open: Bool[np.ndarray, " u"],
) -> tuple[Float[np.ndarray, "u rank"], Float[np.ndarray, " rank"]]:
    """Columns of strata, and of covariates within strata (uncorrelated, variance 1), with the
    penalty of each; rows of 0 where strata are not open.
    """
    if not is_open.any():
        return np.zeros((len(strata), 0)), np.zeros(0)
    one_hot = np.eye(strata.max() + 1)[strata[is_open]]
    one_hot = one_hot[:, one_hot.any(axis=0)]
    means = (one_hot.T @ covariates[is_open]) / one_hot.sum(axis=0)[:, None]
    # What is constant within strata would be rounding here, which must not become a covariate.
    within = covariates[is_open] - one_hot @ means
    is_rounding = np.abs(within).max(axis=0, initial=0) <= 1e-9 * np.abs(covariates).max(axis=0)
    slopes = orthonormal_basis(np.where(is_rounding, 0, within))[:, 1:] * is_open.sum() ** 0.5
    design = np.zeros((len(strata), one_hot.shape[1] + slopes.shape[1]))
    design[is_open] = np.hstack([one_hot, slopes])
    return design, np.repeat([0.0, 1.0], [one_hot.shape[1], slopes.shape[1]])


def _chances(
    label: Float[np.ndarray, " u"],
    design: Float[np.ndarray, "u rank"],
    penalty: Float[np.ndarray, " rank"],
) -> Float[np.ndarray, " u"]:
    """Logistic regression by Newton's method, with halved steps where they overshoot.

    A standard normal prior on slopes: few labels in the group for each covariate make them too
    large otherwise, or infinite, and what is left to chance too little. Each stratum's chances
    sum to its labels.
    """
    beta = np.zeros(design.shape[1])

    def loss(beta: Float[np.ndarray, " rank"]) -> float:
        odds = design @ beta
        return float(np.logaddexp(0, odds).sum() - label @ odds + (penalty * beta**2).sum() / 2)

    for _ in range(_NEWTON_STEPS):
        chance = expit(design @ beta)
        slope = design.T @ (label - chance) - penalty * beta
        bend = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty + _RIDGE)
        step = np.linalg.solve(bend, slope)
        now = loss(beta)
        while loss(beta + step) > now and np.abs(step).max() > _CONVERGED:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() <= _CONVERGED:
            break
    return expit(design @ beta)


def _agreement(
    label: Bool[np.ndarray, " n"], chance: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> float:
    """Mean product of the standardised surprises of two rows of a cluster, 0 at least."""
    weight = chance * (1 - chance)
    surprise = np.where(weight > _CERTAIN, label - chance, 0) / np.sqrt(
        np.maximum(weight, _CERTAIN)
    )
    length = np.bincount(cluster, weight > _CERTAIN)
    n_pairs = (length * (length - 1)).sum()
    products = (np.bincount(cluster, surprise) ** 2).sum() - (surprise**2).sum()
    return float(np.clip(products / max(n_pairs, 1), 0, 1))
