"""What trained networks are worth on one test side, and whether one beat another on it.

Intervals are percentiles of a two-way bootstrap: groups of examples are drawn again, the same for
all classifiers, and so are the seeds of the trainings (crossed factors; Owen 2007). Seeds are few,
so their draws are spread out by sqrt(S / (S - 1)) (Rao and Wu 1988); of one seed nothing is drawn.
p is by sign flips over groups, of differences averaged over seeds: it takes the trainings as they
are, so that a verdict asks for both.

Axes: seeds, n examples, groups of them, draws.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import (
    MIN_UNITS,
    Interval,
    clustered_share_interval,
    paired_interval,
)
from fluoroscope.core.seeding import stream
from fluoroscope.interventions.replies.comparing import group_numbers, sign_flip_p

SCORES: Final = ("accuracy", "macro_f1", "mcc", "loss")
ALPHA = 0.05

Outcome = Literal["beat", "did not beat", "was worse than"]

_RANGES: Final = {
    "accuracy": (0.0, 1.0),
    "macro_f1": (0.0, 1.0),
    "mcc": (-1.0, 1.0),
    "loss": (0.0, np.inf),
}
_TAILS = (0.025, 0.975)
_N_DRAWS = 1000
_AT_ONCE = 100


@dataclass(frozen=True, eq=False)
class Judged:
    """What one kind of classifier said of a side, a row a seed."""

    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, "seeds n"]

    losses: Float[np.ndarray, "seeds n"]
    """In nats."""

    n_classes: int

    def __post_init__(self) -> None:
        if not len(self.labels) or not len(self.predicted):
            raise ConfigError("Classifiers are compared by one example and one seed at least.")

    @property
    def right(self) -> Bool[np.ndarray, "seeds n"]:
        return self.predicted == self.labels

    @property
    def n_seeds(self) -> int:
        return len(self.predicted)

    def only(self, is_kept: Bool[np.ndarray, " n"]) -> "Judged":
        """The same seeds on some of the examples."""
        return Judged(
            self.labels[is_kept],
            self.predicted[:, is_kept],
            self.losses[:, is_kept],
            self.n_classes,
        )

    def by_seed(self) -> Mapping[str, Float[np.ndarray, " seeds"]]:
        """`SCORES` of each seed, counted once over all examples."""
        table = _group_table(self, np.zeros(len(self.labels), dtype=np.int64), 1)
        return {name: of(table)[0] for name, of in _statistics(self).items()}


class Draws:
    """Which groups and seeds are taken, many times over; one for all classifiers of a side."""

    def __init__(
        self, groups: Sequence[str], n_seeds: int, seed: int, n_draws: int = _N_DRAWS
    ) -> None:
        self.which: Int[np.ndarray, " n"] = group_numbers(groups)
        self.n_groups = int(self.which.max()) + 1
        random, size = stream(seed, "plug-in", "two-way bootstrap"), self.n_groups
        taken = (np.bincount(random.integers(size, size=size), minlength=size)
                 for _ in range(n_draws))  # fmt: skip
        # A group is drawn some ten times at most.
        self._counts = np.stack([counts.astype(np.uint8) for counts in taken])
        even = np.full(n_seeds, 1 / n_seeds)
        drawn = random.multinomial(n_seeds, even, n_draws) / n_seeds
        spread = (n_seeds / (n_seeds - 1)) ** 0.5 if n_seeds > 1 else 0.0
        self._seeds: Float[np.ndarray, "draws seeds"] = even + spread * (drawn - even)

    def intervals(
        self,
        table: Float[np.ndarray, "groups columns"],
        statistics: Mapping[
            str, Callable[[Float[np.ndarray, "draws columns"]], Float[np.ndarray, "draws seeds"]]
        ],
    ) -> dict[str, Interval]:
        """Of statistics of sums over groups, each averaged over seeds; no ends where groups are
        fewer than 10 or draws do not differ.
        """
        whole = table.sum(axis=0, keepdims=True)
        values = {name: float(of(whole).mean()) for name, of in statistics.items()}
        if self.n_groups < MIN_UNITS:
            return {name: Interval(value, np.nan, np.nan) for name, value in values.items()}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
        for sums, weights in self.taken(table):
            for name, of in statistics.items():
                parts[name].append((weights * of(sums)).sum(axis=1))
        return {name: _percentiles(values[name], parts[name]) for name in statistics}

    def taken(
        self, table: Float[np.ndarray, "groups columns"]
    ) -> Iterator[tuple[Float[np.ndarray, "draws columns"], Float[np.ndarray, "draws seeds"]]]:
        """Sums over the groups that are drawn, and the weights of the seeds; some draws at a time,
        as a count for each draw and group is large.
        """
        for start in range(0, len(self._counts), _AT_ONCE):
            end = start + _AT_ONCE
            yield self._counts[start:end].astype(np.float64) @ table, self._seeds[start:end]


class Difference(NamedTuple):
    """Of the accuracy of one classifier less that of another."""

    difference: Interval
    p: float

    n_gained: int
    """Examples that the first gets right with more seeds than the second."""

    n_lost: int


def score_intervals(judged: Judged, draws: Draws) -> dict[str, Interval]:
    """`SCORES`, each the mean over seeds."""
    table = _group_table(judged, draws.which, draws.n_groups)
    found = draws.intervals(table, _statistics(judged))
    accuracy = found["accuracy"]
    if accuracy.value in (0.0, 1.0):
        # Nothing differs between draws, and yet another example might.
        found["accuracy"] = clustered_share_interval(judged.right[0], draws.which)
    return {name: _within(one, *_RANGES[name]) for name, one in found.items()}


def accuracy_interval(right: Bool[np.ndarray, "seeds n"], draws: Draws) -> Interval:
    """Share of right answers, the mean over seeds; for answers of whatever kind."""
    found = draws.intervals(*_shares(right.astype(np.float64), draws))["share"]
    if found.value in (0.0, 1.0):
        # Nothing differs between draws, and yet another example might.
        return clustered_share_interval(right[0], draws.which)
    return _within(found, 0.0, 1.0)


def compare_accuracy(one: Judged, other: Judged, draws: Draws, seed: int) -> Difference:
    """Paired by example and seed. Raises `ConfigError` where these are not the same."""
    if len(one.labels) == len(other.labels) and (one.labels != other.labels).any():
        raise ConfigError("Classifiers are compared on the same examples; their labels differ.")
    return compare_right(one.right, other.right, draws, seed)


def compare_right(
    one: Bool[np.ndarray, "seeds n"],
    other: Bool[np.ndarray, "more_seeds m"],
    draws: Draws,
    seed: int,
) -> Difference:
    """Of two tables of right answers, paired by example and seed."""
    if one.shape != other.shape:
        raise ConfigError(
            f"Networks are compared on the same examples and seeds; got {one.shape} and "
            f"{other.shape} of seeds and examples."
        )
    change = one.astype(np.float64) - other
    mean = change.mean(axis=0)
    n_gained, n_lost = int((mean > 1e-9).sum()), int((mean < -1e-9).sum())
    p = sign_flip_p(mean, draws.which, seed)
    if not change.any():
        # Nothing tells how alike the examples of a group are: each group counts once.
        return Difference(paired_interval(0, 0, draws.n_groups), p, 0, 0)
    found = draws.intervals(*_shares(change, draws))
    return Difference(found["share"], p, n_gained, n_lost)


def _shares(
    rows: Float[np.ndarray, "seeds n"], draws: Draws
) -> tuple[np.ndarray, dict[str, Callable[[np.ndarray], np.ndarray]]]:
    """Sums over groups of each seed and their sizes, and their means of what is drawn."""
    sums = np.stack([np.bincount(draws.which, row, draws.n_groups) for row in rows])
    sizes = np.bincount(draws.which, minlength=draws.n_groups)
    n_seeds = len(rows)
    table = np.concatenate([sums, sizes[None]]).T
    return table, {"share": lambda totals: totals[:, :n_seeds] / totals[:, n_seeds:]}


def outcome_of(difference: Interval, q: float) -> Outcome:
    """By rule: the interval is on one side of 0, and q below `ALPHA`. Without ends nothing is
    known to differ.
    """
    if not q < ALPHA:
        return "did not beat"
    if difference.low > 0:
        return "beat"
    return "was worse than" if difference.high < 0 else "did not beat"


def _within(interval: Interval, least: float, most: float) -> Interval:
    """Seeds that are spread out may go beyond what a score can be."""
    value, low, high = interval
    # Not the built-in `min`, which makes a number of NaN.
    return Interval(value, float(np.maximum(low, least)), float(np.minimum(high, most)))


def _percentiles(value: float, parts: Sequence[np.ndarray]) -> Interval:
    draws = np.concatenate(parts)
    if np.ptp(draws) <= 1e-12 * max(1.0, abs(value)):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(draws, _TAILS)
    return Interval(value, float(low), float(high))


def _group_table(
    judged: Judged, which: Int[np.ndarray, " n"], n_groups: int
) -> Float[np.ndarray, "groups columns"]:
    """Of each group: by seed its confusion matrix, then by seed its loss; see `_statistics`."""
    n_classes = judged.n_classes
    columns = []
    for predicted in judged.predicted:
        cell = (which * n_classes + judged.labels) * n_classes + predicted
        counts = np.bincount(cell, minlength=n_groups * n_classes**2)
        columns.append(counts.reshape(n_groups, n_classes**2))
    losses = [np.bincount(which, row, n_groups)[:, None] for row in judged.losses]
    return np.concatenate([*columns, *losses], axis=1, dtype=np.float64)


def _statistics(
    judged: Judged,
) -> dict[str, Callable[[Float[np.ndarray, "draws columns"]], Float[np.ndarray, "draws seeds"]]]:
    """`SCORES` of sums of `_group_table`, as `metrics.scores_of` has them."""
    n_seeds, n_classes = judged.n_seeds, judged.n_classes

    def confusions(totals: np.ndarray) -> np.ndarray:
        own = totals[:, : n_seeds * n_classes**2]
        return own.reshape(len(totals), n_seeds, n_classes, n_classes)

    def losses(totals: np.ndarray) -> np.ndarray:
        return totals[:, -n_seeds:] / confusions(totals).sum(axis=(2, 3))

    return {
        "accuracy": lambda totals: _accuracy(confusions(totals)),
        "macro_f1": lambda totals: _macro_f1(confusions(totals)),
        "mcc": lambda totals: _mcc(confusions(totals)),
        "loss": losses,
    }


Confusions = Shaped[np.ndarray, "draws seeds classes classes"]


def _accuracy(matrix: Confusions) -> Float[np.ndarray, "draws seeds"]:
    return np.trace(matrix, axis1=2, axis2=3) / matrix.sum(axis=(2, 3))


def _macro_f1(matrix: Confusions) -> Float[np.ndarray, "draws seeds"]:
    """Over classes that are present or predicted."""
    both = matrix.sum(axis=3) + matrix.sum(axis=2)
    right = np.diagonal(matrix, axis1=2, axis2=3)
    f1 = np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0)
    return f1.sum(axis=2) / (both > 0).sum(axis=2)


def _mcc(matrix: Confusions) -> Float[np.ndarray, "draws seeds"]:
    """Matthews' coefficient of many classes (Gorodkin 2004); 0 where one class is all."""
    true, said, total = matrix.sum(axis=3), matrix.sum(axis=2), matrix.sum(axis=(2, 3))
    above = np.trace(matrix, axis1=2, axis2=3) * total - (true * said).sum(axis=2)
    below = (total**2 - (true**2).sum(axis=2)) * (total**2 - (said**2).sum(axis=2))
    return np.divide(above, np.sqrt(below), out=np.zeros_like(total), where=below > 0)
