"""Outcomes of the samples of a task, shuffled and resampled by whole groups.

Outcomes are few numbers and known from the generation, before any latent is looked at. So every
worker has all of them, draws the same shuffles and the same weights from the seed alone, and one
pass over the latents is enough for the correlation, its null and its bootstrap.

Shuffles give the outcomes of a group (questions on one base sentence) to another group as a whole.
Groups exchange with those of their size, or with a few sizes together where there are fewer than
`MIN_EXCHANGED` of one; then a place in one group takes the like place of the other.

Weights of resamples are Poisson(1), one a group (Hanley and MacGibbon 2006; Chamandy et al. 2012):
a bootstrap that needs no total, so rows may come in any order.

Axes: `n` samples, `k` shuffles (`columns` = k + 1), `b` resamples, `g` groups.
"""

import hashlib
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Real, Shaped

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream

MIN_EXCHANGED = 10
"""Groups that exchange with each other at least, where there are that many."""


class Outcomes:
    """What became of each sample: a number from 0 to 1, mostly one of the two.

    `group` names the rows that belong together; without it each row stands for itself. A sample is
    a success from `threshold` on. Holds n (k + 1) + g b bytes (for up to 256 different outcomes).
    """

    def __init__(
        self,
        values: Real[np.ndarray, " n"],
        group: Shaped[np.ndarray, " n_group"] | None = None,
        threshold: float = 0.5,
        n_shuffles: int = 200,
        n_resamples: int = 100,
        seed: int = 0,
    ) -> None:
        self.values: Float[np.ndarray, " n"] = np.asarray(values, dtype=np.float64)
        names = np.arange(len(values)) if group is None else group
        if len(names) != len(values):
            raise ConfigError(f"There are {len(values)} outcomes, but {len(names)} groups.")
        found, index, sizes = np.unique(names, return_inverse=True, return_counts=True)
        self.group: Int[np.ndarray, " n"] = index
        self.n_groups, self._sizes = len(found), sizes
        self.threshold, self.seed = threshold, seed
        self.n_shuffles, self.n_resamples = n_shuffles, n_resamples
        self._check()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_grouped(self) -> bool:
        """Whether some rows belong together."""
        return self.n_groups < len(self)

    @property
    def success(self) -> Bool[np.ndarray, " n"]:
        return self.values >= self.threshold

    def columns(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows columns"]:
        """The outcomes, then each shuffle of them; all less the mean outcome."""
        return self._levels[self._codes[rows]]

    def weights(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows b"]:
        """How often each resample takes the row."""
        return self._weights[self.group[rows]].astype(np.float64)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that sums over these outcomes depend on."""
        digest = hashlib.sha256(self.values.tobytes() + self.group.astype(np.int64).tobytes())
        settings = (self.threshold, self.n_shuffles, self.n_resamples, self.seed)
        digest.update(repr(settings).encode())
        return digest.hexdigest()

    @cached_property
    def _levels(self) -> Float[np.ndarray, " levels"]:
        return np.unique(self.values) - self.values.mean()

    @cached_property
    def _codes(self) -> Integer[np.ndarray, "n columns"]:
        levels, code = np.unique(self.values, return_inverse=True)
        codes = np.empty((len(self), self.n_shuffles + 1), np.min_scalar_type(len(levels) - 1))
        codes[:, 0] = code
        for i, taken in enumerate(self._shuffles()):
            codes[:, i + 1] = code[taken]
        if self.n_shuffles and len(levels) > 1 and (codes == codes[:, :1]).all():
            raise ConfigError(
                "Shuffling whole groups changes no outcome, as all groups have the same: leave "
                "out the groups, so that rows are shuffled."
            )
        return codes

    def _shuffles(self) -> list[Int[np.ndarray, " n"]]:
        """For each shuffle and row, the row whose outcome it takes."""
        order = np.argsort(self.group, kind="stable")
        start = np.cumsum(self._sizes) - self._sizes
        place = np.empty(len(self), int)
        place[order] = np.arange(len(self)) - start[self.group[order]]
        pools = _pools(self._sizes)
        by_pool = np.argsort(pools, kind="stable")
        own = self._sizes[self.group]
        taken = []
        for i in range(self.n_shuffles):
            random = stream(self.seed, "shuffled outcomes", i)
            giver = np.empty(self.n_groups, int)
            giver[by_pool] = np.lexsort((random.random(self.n_groups), pools))
            of = giver[self.group]
            taken.append(order[start[of] + place * self._sizes[of] // own])
        return taken

    @cached_property
    def _weights(self) -> Integer[np.ndarray, "g b"]:
        random = stream(self.seed, "resampled outcomes")
        return random.poisson(1.0, (self.n_groups, self.n_resamples)).astype(np.uint8)

    def _check(self) -> None:
        bad = ~((self.values >= 0) & (self.values <= 1))
        if not len(self) or bad.any():
            what = f"row {np.argmax(bad)} has {self.values[bad][0]}" if len(self) else "none came"
            raise ConfigError(f"Outcomes must be numbers from 0 to 1, but {what}.")
        if self.n_shuffles < 0 or self.n_resamples < 0:
            raise ConfigError(
                f"Shuffles and resamples are counted from 0, got {self.n_shuffles} and "
                f"{self.n_resamples}."
            )
        if self.n_groups < 2:
            raise ConfigError("Outcomes are compared between groups, but all rows are of one.")


def _pools(sizes: Int[np.ndarray, " g"]) -> Int[np.ndarray, " g"]:
    """Which groups exchange: neighbouring sizes together until there are enough of them."""
    distinct, which, n_of = np.unique(sizes, return_inverse=True, return_counts=True)
    pool, numbers, held = 0, np.zeros(len(distinct), int), 0
    for i, n in enumerate(n_of):
        left = n_of[i:].sum()
        if held >= MIN_EXCHANGED and left >= MIN_EXCHANGED:
            pool, held = pool + 1, 0
        numbers[i], held = pool, held + n
    return numbers[which]
