"""How latents go along with an outcome, in one pass, in parts that can be merged.

Rows are samples of a task, each with one sparse row of pooled latents x (`correlation_pooling`) and
an outcome y from 0 to 1 (`correlation_outcomes`). Of latent i, CorrSteer (arXiv:2508.12535) takes

    r_i = cov(x_i, y) / sqrt(var x_i var y),    c_i = mean of x_i over samples with y > 0,

DSG (arXiv:2504.08192) E[x_i^2 | one set] / E[x_i^2 | the other], SpARE (arXiv:2410.15999) the
mutual information. All come from sums of a fixed size, to which only active entries add: the
outcomes' shuffles and resamples are further columns of one sparse product.

Sums are in float64 about a pivot: zero for a latent that was zero in any row, else its first value.
A pivot that is among the data never makes a difference of squares lose more than n roundings,
wherever the data lie; so r is that of two passes, and merging needs no means.

Memory for one hook point, whatever number of rows: 8 d_sae (k + 15 + 3 b) bytes and the bins; b
resamples of all latents, or of a shortlist (`resampled`). 16,384 latents: 28 MB at k = 200 and
b = 0, and 39 MB more at b = 100.

Axes: `rows` samples of a call, `d_sae` latents, `k` shuffles, `b` resamples, `some` latents.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from fluoroscope.core.errors import ConfigError, MismatchError, NumericsError
from fluoroscope.core.running_stats import Arrays
from fluoroscope.features.correlation_bins import BinCounts, Side
from fluoroscope.features.correlation_outcomes import Outcomes
from fluoroscope.features.correlation_resamples import (
    Batch,
    Resamples,
    correlation,
    divided,
    squares,
)

POSITIVE, SUCCESS, FAILURE = range(3)
"""Sides of `n_side`, `active_side`, `sums`, `squares`: y > 0; y from the threshold on; below it."""

_EVERY = slice(None)


class OutcomeMoments:
    """Joint statistics of the latents of one hook point with `outcomes`.

    `resampled` are the latents that are resampled as well; all by default.
    """

    def __init__(
        self, d_sae: int, outcomes: Outcomes, resampled: Int[np.ndarray, " some"] | None = None
    ) -> None:
        self.d_sae, self.outcomes = d_sae, outcomes
        k = 1 + outcomes.n_shuffles
        self.seen: Bool[np.ndarray, " n"] = np.zeros(len(outcomes), dtype=bool)
        self.active: Int[np.ndarray, " d_sae"] = np.zeros(d_sae, dtype=np.int64)
        self.n_side: Int[np.ndarray, " 3"] = np.zeros(3, dtype=np.int64)
        self.active_side, self.sums, self.squares = (np.zeros((d_sae, 3)) for _ in range(3))
        self.bins = BinCounts(d_sae)
        self._pivot = np.zeros(d_sae)
        # Sums over rows of x, x^2 and x^3, and of x times each outcome; x about the pivot.
        self._power = np.zeros((3, d_sae))
        self._cross = np.zeros((d_sae, k))
        # Sums over rows of each outcome and of its square.
        self._outcome = np.zeros((2, k))
        latents = np.arange(d_sae) if resampled is None else np.unique(resampled)
        self._resamples = Resamples(latents, outcomes.n_resamples)

    @property
    def n(self) -> int:
        """Rows seen."""
        return int(self.seen.sum())

    def add(self, rows: Int[np.ndarray, " rows"], pooled: csr_array) -> None:
        """`rows` are the samples' places among the outcomes; `pooled` is [rows, d_sae]."""
        if len(rows) == 0:
            return
        batch = Batch.of(rows, self._checked(rows, pooled))
        active = np.bincount(batch.column, minlength=len(batch.touched))
        self._move(self._pivots(batch, active))
        x = batch.value - self._pivot[batch.latent]
        y = self.outcomes.columns(rows)
        for power in range(3):
            self._power[power] += np.bincount(batch.latent, x ** (power + 1), self.d_sae)
        self._cross[batch.touched] += batch.products(x, y)
        self._outcome += [y.sum(axis=0), (y**2).sum(axis=0)]
        if self.outcomes.n_resamples:
            self._resamples.add(batch, x, y[:, :1], self.outcomes.weights(rows))
        self._add_sides(batch)
        self.active[batch.touched] += active
        self.seen[rows] = True

    def merge(self, other: "OutcomeMoments") -> None:
        """Takes in what `other` has seen of other rows."""
        self._check_mergeable(other)
        if other.n == 0:
            return
        # Both are brought to one pivot: mine where both have none but active rows, else zero.
        both = (self.active == self.n) & (other.active == other.n)
        pivot = np.where(both, other._pivot if self.n == 0 else self._pivot, 0.0)
        moved = type(self).from_state(other.state(), other.outcomes)
        self._move(pivot)
        moved._move(pivot)
        self.seen = self.seen | moved.seen
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(moved, name))
        self._resamples.merge(moved._resamples)
        self.bins.merge(moved.bins)

    @property
    def resampled(self) -> Int[np.ndarray, " some"]:
        """Latents of the rows of `resampled_pearson`."""
        return self._resamples.latents

    @property
    def mean(self) -> Float[np.ndarray, " d_sae"]:
        return self._pivot + self._power[0] / (self.n or np.nan)

    @property
    def mean_active(self) -> Float[np.ndarray, " d_sae"]:
        """E[x | active]; NaN for a latent that never is."""
        total = self._power[0] + self.active * self._pivot
        return divided(total, self.active.astype(np.float64))

    def side_mean(self, side: int) -> Float[np.ndarray, " d_sae"]:
        """E[x | side], zeros included; NaN where no row is of the side."""
        return self.sums[:, side] / (self.n_side[side] or np.nan)

    def fisher(self) -> Float[np.ndarray, " d_sae"]:
        """E[x^2 | success] / E[x^2 | failure]; infinite where only successes have it, else NaN."""
        means = self.squares / np.where(self.n_side > 0, self.n_side, np.nan)
        ratio = divided(means[:, SUCCESS], means[:, FAILURE])
        only = (self.squares[:, FAILURE] == 0) & (self.squares[:, SUCCESS] > 0)
        return np.where(only & (self.n_side[FAILURE] > 0), np.inf, ratio)

    def mutual_information(self) -> Float[np.ndarray, " d_sae"]:
        """With success, in nats; see `BinCounts`."""
        return self.bins.mutual_information(int(self.n_side[SUCCESS]), int(self.n_side[FAILURE]))

    def active_quantile(self, share: float, side: Side = "all") -> Float[np.ndarray, " d_sae"]:
        """Of the values that are not zero, within 2 %."""
        return self.bins.quantile(share, side)

    def pearson(self) -> Float[np.ndarray, " d_sae"]:
        """The r of each latent and the outcome; NaN where the latent is the same in all rows."""
        self.check_varies()
        return self._correlations(slice(0, 1))[:, 0]

    def shuffled_pearson(self, latents: slice = _EVERY) -> Float[np.ndarray, "some k"]:
        """The r of each latent and each shuffle; NaN where either is the same in all rows."""
        self.check_varies()
        return self._correlations(slice(1, None), latents)

    def resampled_pearson(self) -> Float[np.ndarray, "some b"]:
        """The r of those `resampled` in each resample; NaN where one of both does not vary."""
        self.check_varies()
        return self._resamples.pearson()

    def skewness(self) -> Float[np.ndarray, " d_sae"]:
        """Of r over all shuffles of single rows (Pitman 1937):

        n sqrt(n - 1) / (n - 2) * sum dx^3 sum dy^3 / (sum dx^2 sum dy^2)^(3/2).
        """
        n = self.n
        s1, s2, s3 = self._power
        cubes = s3 - 3 * s2 * s1 / n + 2 * s1**3 / n**2
        y = self.outcomes.values[self.seen]
        y = y - y.mean()
        scale = (self._x_squares * (y @ y)) ** 1.5
        factor = n * (n - 1) ** 0.5 / (n - 2) if n > 2 else np.nan
        return factor * divided(cubes * (y**3).sum(), scale)

    def check_varies(self) -> None:
        """Raises `ConfigError` where nothing can go along with the outcome."""
        y = self.outcomes.values[self.seen]
        if len(y) < 2 or y.min() == y.max():
            what = f"is {y[0]} in all {len(y)} rows" if len(y) else "was seen in no row"
            raise ConfigError(
                f"A correlation needs an outcome that varies, but it {what}: choose a task that "
                "is neither always solved nor never, or take more samples."
            )

    def state(self) -> Arrays:
        """Arrays that `from_state` makes the same object of."""
        arrays = {name.strip("_"): getattr(self, name) for name in (*_SUMS, *_OTHERS)}
        bins = {f"bins_{name}": array for name, array in self.bins.state().items()}
        return {
            **arrays,
            **bins,
            "resampled": self.resampled,
            "resamples": self._resamples.sums,
            "weight": self._resamples.weight,
            "outcomes": np.frombuffer(bytes.fromhex(self.outcomes.fingerprint), np.uint8),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], outcomes: Outcomes) -> "OutcomeMoments":
        if state["outcomes"].tobytes().hex() != outcomes.fingerprint:
            raise MismatchError(
                "These sums were made with other outcomes, groups, shuffles or seeds than those "
                "given; load them with their own."
            )
        made = cls(len(state["active"]), outcomes, state["resampled"])
        for name in (*_SUMS, *_OTHERS):
            setattr(made, name, np.array(state[name.strip("_")]))
        made._resamples.sums = np.array(state["resamples"])
        made._resamples.weight = np.array(state["weight"])
        bins = {name: np.array(state[f"bins_{name}"]) for name in ("keys", "counts")}
        made.bins = BinCounts.from_state(bins, made.d_sae)
        return made

    @property
    def _x_squares(self) -> Float[np.ndarray, " d_sae"]:
        return squares(self._power[0], self._power[1], self.n or np.nan)

    def _correlations(
        self, columns: slice, latents: slice = _EVERY
    ) -> Float[np.ndarray, "some columns"]:
        y, yy = self._outcome[:, columns]
        cross = self._cross[latents, columns] - np.outer(self._power[0, latents] / self.n, y)
        return correlation(cross, self._x_squares[latents, None], squares(y, yy, self.n))

    def _pivots(
        self, batch: Batch, active: Int[np.ndarray, " touched"]
    ) -> Float[np.ndarray, " d_sae"]:
        """About what to sum from this batch on: zero for latents that are zero in any row."""
        is_always = (active == len(batch.rows)) & (self.active[batch.touched] == self.n)
        always = batch.touched[is_always]
        pivot = np.zeros(self.d_sae)
        if self.n:
            pivot[always] = self._pivot[always]
            return pivot
        first = slice(0, batch.starts[1])
        values = np.zeros(self.d_sae)
        values[batch.latent[first]] = batch.value[first]
        pivot[always] = values[always]
        return pivot

    def _add_sides(self, batch: Batch) -> None:
        values, success = self.outcomes.values[batch.rows], self.outcomes.success[batch.rows]
        is_side = np.stack([values > 0, success, ~success], axis=1).astype(np.float64)
        self.n_side += is_side.sum(axis=0).astype(np.int64)
        self.active_side[batch.touched] += batch.products(np.ones(len(batch.value)), is_side)
        self.sums[batch.touched] += batch.products(batch.value, is_side)
        self.squares[batch.touched] += batch.products(batch.value**2, is_side)
        self.bins.add(batch.latent, batch.value, np.repeat(success, np.diff(batch.starts)))

    def _move(self, pivot: Float[np.ndarray, " d_sae"]) -> None:
        """Takes sums about another pivot, of latents that were active in all rows seen."""
        moved = np.flatnonzero(self._pivot != pivot)
        by = self._pivot[moved] - pivot[moved]
        self._pivot = pivot
        if self.n == 0 or not len(moved):
            return
        s1, s2, s3 = self._power[:, moved]
        self._power[0, moved] = s1 + self.n * by
        self._power[1, moved] = s2 + 2 * by * s1 + self.n * by**2
        self._power[2, moved] = s3 + 3 * by * s2 + 3 * by**2 * s1 + self.n * by**3
        self._cross[moved] += np.outer(by, self._outcome[0])
        self._resamples.move(moved, by)

    def _checked(self, rows: Int[np.ndarray, " rows"], pooled: csr_array) -> csr_array:
        if pooled.shape != (len(rows), self.d_sae):
            raise ConfigError(
                f"Pooled latents must have shape {(len(rows), self.d_sae)}, got {pooled.shape}."
            )
        if rows.min() < 0 or rows.max() >= len(self.seen):
            raise ConfigError(f"A row must be 0 to {len(self.seen) - 1}, as there are outcomes.")
        if self.seen[rows].any() or len(np.unique(rows)) < len(rows):
            raise ConfigError("A sample was added before; each must be added once.")
        if not np.isfinite(pooled.data).all():
            raise NumericsError("A pooled latent is a NaN or an infinity; find where from.")
        made = csr_array(pooled, dtype=np.float64, copy=True)
        made.sum_duplicates()
        made.eliminate_zeros()
        return made

    def _check_mergeable(self, other: "OutcomeMoments") -> None:
        same = self.outcomes.fingerprint == other.outcomes.fingerprint
        if not (same and self.d_sae == other.d_sae):
            raise MismatchError("Only sums of the same outcomes and latents can be merged.")
        if not np.array_equal(self.resampled, other.resampled):
            raise MismatchError("Only sums that resample the same latents can be merged.")
        if (self.seen & other.seen).any():
            row = int(np.argmax(self.seen & other.seen))
            raise ConfigError(f"Both have seen sample {row}; each must be in one part.")


_SUMS = (
    "active",
    "n_side",
    "active_side",
    "sums",
    "squares",
    "_power",
    "_cross",
    "_outcome",
)
_OTHERS = ("seen", "_pivot")
