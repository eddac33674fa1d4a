"""What an intervention did to the replies to the same samples: a paired comparison.

Every sample is its own control. A reply differs from another if its text does, or, where
probabilities alone were read, its likeliest option. Intervals and p are over groups, as samples
of one group are alike.

The side-effect ratio (CorrSteer, arXiv:2508.12535) is n_worse / (n_worse + n_better) among
replies that differ. It hides how many they are, so both counts stand beside it.

Axes: `n` samples, `groups` groups.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest, false_discovery_control
from scipy.stats import t as student

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.intervals import (
    Interval,
    clustered_mean_interval,
    clustered_share_interval,
    paired_interval,
    share_interval,
)
from fluoroscope.core.seeding import stream
from fluoroscope.data.tasks.samples import Score

ALL_SAMPLES = "all"
"""The row of `compare_by` that holds for all categories together."""

N_FLIPS = 9999
_ROUNDING = 1e-6
"""A change of score that is none: float32 noise of graded scores."""

Shift = Literal["within", "beyond", "open"]
"""Whether a difference lies within a margin, beyond it, or nobody can tell."""


@runtime_checkable
class ScoredReply(Protocol):
    """What is compared: a `Reply`, or anything with these three."""

    @property
    def text(self) -> str: ...

    @property
    def score(self) -> Score: ...

    @property
    def numbers(self) -> tuple[float, ...]:
        """Of each option, where the text is empty."""
        ...


class Comparison(NamedTuple):
    """Of the replies after an intervention with those before; differences are after - before."""

    n: int
    n_groups: int

    before: Interval
    after: Interval
    difference: Interval

    n_changed: int
    """Replies that differ."""

    n_worse: int
    """Of these, how many score lower."""

    n_better: int

    n_better_by_form: int
    """Of `n_better`, those that could not be read before: a gain of form, perhaps not of
    knowledge."""

    side_effect: Interval | None
    """n_worse / (n_worse + n_better); None where both are 0."""

    unreadable_before: Interval
    unreadable_after: Interval

    p_mcnemar: float | None
    """Exact, two-sided, and for samples that have nothing to do with each other; None of graded
    scores."""

    p_flips: float
    """Of a mean difference of 0, by random signs of the groups' differences."""

    @property
    def p(self) -> float:
        """McNemar's where scores are 0 or 1 and every sample is a group; else by random signs."""
        if self.p_mcnemar is None or self.n_groups < self.n:
            return self.p_flips
        return self.p_mcnemar

    def shift(self, margin: float) -> Shift:
        """Equivalence by the 95 % interval (Schuirmann 1987, at 2.5 % a side).

        A difference that is not significant is no sign of equality; "within" is one.
        """
        if not margin > 0:
            raise ConfigError(f"The margin of an equivalence must be above 0, got {margin}.")
        return shift_of(self.difference.low, self.difference.high, margin)

    def statement(self, margin: float) -> str:
        """What may be said of "left unchanged", in a sentence."""
        value, low, high = self.difference
        match self.shift(margin):
            case "within":
                said = f"Left unchanged, within {margin:g}"
            case "beyond":
                said = f"Changed by more than {margin:g}"
            case _:
                said = f"Whether it changed by more than {margin:g} cannot be told"
        ends = "no interval" if math.isnan(low) else f"95 % interval {low:+.3f} to {high:+.3f}"
        return f"{said}: {value:+.3f}, {ends}, {self.n} samples in {self.n_groups} groups."

    def row(self) -> dict[str, float | int | None]:
        """As a row of a table: `NAME`, `NAME_low` and `NAME_high` of each interval, None where
        there is none to tell.
        """
        found: dict[str, float | int | None] = {}
        for name, value in self._asdict().items():
            if name in _INTERVALS:
                ends = (None, None, None) if value is None else value
                keys = (name, f"{name}_low", f"{name}_high")
                found |= zip(keys, map(_number, ends), strict=True)
            else:
                found[name] = value
        return found | {"p": self.p}


def shift_of(low: float | None, high: float | None, margin: float) -> Shift:
    """Of the 95 % interval of a difference; open where there is none."""
    if low is None or high is None:
        return "open"
    if low >= -margin and high <= margin:
        return "within"
    return "beyond" if low > margin or high < -margin else "open"


class SeedSpread(NamedTuple):
    """Of one number over seeds, by Student's t; NaN of fewer than two seeds."""

    n_seeds: int
    mean: float
    sd: float
    low: float
    high: float


def compare(
    before: Sequence[ScoredReply],
    after: Sequence[ScoredReply],
    groups: Sequence[str],
    seed: int = 0,
) -> Comparison:
    """Of replies to the same samples in the same order; `seed` draws signs, where all of them
    would be too many.
    """
    return _compared(_paired(before, after, groups), seed)


def compare_by(
    before: Sequence[ScoredReply],
    after: Sequence[ScoredReply],
    groups: Sequence[str],
    categories: Sequence[str],
    seed: int = 0,
) -> pl.DataFrame:
    """A row for all samples and one for each category: `category`, what `Comparison.row` has, and
    `q`, the p of categories after Benjamini and Hochberg.
    """
    pairs = _paired(before, after, groups)
    if len(categories) != len(before):
        raise ConfigError(
            f"Every sample needs a category, got {len(categories)} of them for {len(before)} "
            "samples."
        )
    named = np.asarray(categories)
    found = {ALL_SAMPLES: _compared(pairs, seed)}
    for name in dict.fromkeys(categories):
        if name == ALL_SAMPLES:
            raise ConfigError(f"A category is called {name!r}, as all samples together are.")
        found[name] = _compared(pairs.only(named == name), seed)
    q = false_discovery_control([one.p for one in found.values()][1:])
    return as_table(found, "category").with_columns(q=pl.Series([None, *q], dtype=pl.Float64))


def as_table(found: Mapping[str, Comparison], column: str) -> pl.DataFrame:
    """A row for each comparison, its name in `column`."""
    rows = [{column: name, **one.row()} for name, one in found.items()]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(pl.col(pl.Null).cast(pl.Float64))


def over_seeds(comparisons: Sequence[Comparison]) -> dict[str, SeedSpread]:
    """`before`, `after`, `difference` and `side_effect` over seeds, the last over those in which a
    score changed.

    It tells how much the seed matters. Where all seeds are judged on the same samples, it does not
    tell what other samples would say.
    """
    ratios = [one.side_effect.value for one in comparisons if one.side_effect is not None]
    return {
        "before": _spread([one.before.value for one in comparisons]),
        "after": _spread([one.after.value for one in comparisons]),
        "difference": _spread([one.difference.value for one in comparisons]),
        "side_effect": _spread(ratios),
    }


def mean_over_groups(values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> Interval:
    """Of a mean of numbers, or of a share where all are 0 or 1."""
    is_alone = len(np.unique(groups)) == len(groups)
    if not _is_binary(values):
        return clustered_mean_interval(values, groups)
    return share_interval(values > 0) if is_alone else clustered_share_interval(values > 0, groups)


def sign_flip_p(
    differences: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"], seed: int
) -> float:
    """Of a mean of 0, two-sided: how often random signs of the groups' sums give as large a sum
    (Fisher 1935, section 21). All signs are tried where they are at most `N_FLIPS`.

    It takes differences to be as likely as their opposites.
    """
    _, which = np.unique(groups, return_inverse=True)
    sums = np.bincount(which, differences)
    # A sum of 0 has no sign.
    sums = sums[np.abs(sums) > _ROUNDING * 1e-3]
    # Equal up to rounding is as large.
    enough = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    if 2 ** len(sums) <= N_FLIPS:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((2.0 * bits - 1) @ sums) >= enough).mean())
    random, n_as_large = stream(seed, "replies", "signs"), 0
    for start in range(0, N_FLIPS, 1000):
        size = (min(1000, N_FLIPS - start), len(sums))
        signs = 2.0 * random.integers(2, size=size, dtype=np.int8) - 1
        n_as_large += int((np.abs(signs @ sums) >= enough).sum())
    return (1 + n_as_large) / (1 + N_FLIPS)


def group_numbers(groups: Sequence[str]) -> Int[np.ndarray, " n"]:
    """The same number for samples of one group."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)


_INTERVALS = {
    "before",
    "after",
    "difference",
    "side_effect",
    "unreadable_before",
    "unreadable_after",
}


class _Pairs(NamedTuple):
    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    is_changed: Bool[np.ndarray, " n"]
    unread_before: Bool[np.ndarray, " n"]
    unread_after: Bool[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]

    def only(self, is_kept: Bool[np.ndarray, " n"]) -> "_Pairs":
        return _Pairs(*(column[is_kept] for column in self))


def _paired(
    before: Sequence[ScoredReply], after: Sequence[ScoredReply], groups: Sequence[str]
) -> _Pairs:
    if not before:
        raise ConfigError("There is no reply to compare; give at least one before and after.")
    if not len(before) == len(after) == len(groups):
        raise ConfigError(
            "Replies are compared sample by sample, each with its group; got "
            f"{len(before)} replies before, {len(after)} after, and {len(groups)} groups."
        )
    return _Pairs(
        before=_scores(before, "before"),
        after=_scores(after, "after"),
        is_changed=np.array([_said(a) != _said(b) for a, b in zip(before, after, strict=True)]),
        unread_before=np.array([not reply.score.is_readable for reply in before]),
        unread_after=np.array([not reply.score.is_readable for reply in after]),
        groups=group_numbers(groups),
    )


def _scores(replies: Sequence[ScoredReply], when: str) -> Float[np.ndarray, " n"]:
    scores = np.array([reply.score.value for reply in replies], dtype=float)
    is_wrong = ~((scores >= 0) & (scores <= 1))
    if is_wrong.any():
        place = int(is_wrong.argmax())
        raise NumericsError(
            f"Scores are in [0, 1], and reply {place} {when} the intervention has {scores[place]}."
        )
    return scores


def _said(reply: ScoredReply) -> str | int:
    """What was answered: the text, or the place of the likeliest option."""
    if reply.text or not reply.numbers:
        return reply.text
    return int(np.argmax(reply.numbers))


def _compared(pairs: _Pairs, seed: int) -> Comparison:
    change = pairs.after - pairs.before
    is_worse, is_better = change < -_ROUNDING, change > _ROUNDING
    is_counted = pairs.is_changed & (is_worse | is_better)
    side_effect = None
    if is_counted.any():
        fell = is_worse[is_counted].astype(float)
        side_effect = mean_over_groups(fell, pairs.groups[is_counted])
    better = pairs.is_changed & is_better
    return Comparison(
        n=len(change),
        n_groups=len(np.unique(pairs.groups)),
        before=mean_over_groups(pairs.before, pairs.groups),
        after=mean_over_groups(pairs.after, pairs.groups),
        difference=_difference(pairs),
        n_changed=int(pairs.is_changed.sum()),
        n_worse=int((pairs.is_changed & is_worse).sum()),
        n_better=int(better.sum()),
        n_better_by_form=int((better & pairs.unread_before & ~pairs.unread_after).sum()),
        side_effect=side_effect,
        unreadable_before=mean_over_groups(pairs.unread_before.astype(float), pairs.groups),
        unreadable_after=mean_over_groups(pairs.unread_after.astype(float), pairs.groups),
        p_mcnemar=_mcnemar(pairs, int(is_better.sum()), int(is_worse.sum())),
        p_flips=sign_flip_p(change, pairs.groups, seed),
    )


def _difference(pairs: _Pairs) -> Interval:
    """Of Bonett and Price where scores are 0 or 1 and samples stand alone; else over groups, and
    where scores are 0 or 1 never narrower than that.
    """
    change, n_groups = pairs.after - pairs.before, len(np.unique(pairs.groups))
    is_binary = _is_binary(pairs.before) and _is_binary(pairs.after)
    first = float(change[0])
    if (change == first).all() and first in (-1.0, 0.0, 1.0):
        # Nothing tells how alike the samples of a group are: each group counts once. Changes lie
        # in [-1, 1], so the share of groups that may change bounds graded ones as well.
        return paired_interval(n_groups * (first > 0), n_groups * (first < 0), n_groups)
    alone = paired_interval(int((change > 0.5).sum()), int((change < -0.5).sum()), len(change))
    if is_binary and n_groups == len(change):
        return alone
    together = clustered_mean_interval(change, pairs.groups)
    if not is_binary or math.isnan(together.low):
        return together
    low, high = min(together.low, alone.low), max(together.high, alone.high)
    return Interval(together.value, low, high)


def _mcnemar(pairs: _Pairs, gained: int, lost: int) -> float | None:
    if not (_is_binary(pairs.before) and _is_binary(pairs.after)):
        return None
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _is_binary(values: Float[np.ndarray, " n"]) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _spread(values: Sequence[float]) -> SeedSpread:
    n = len(values)
    if n < 2:
        return SeedSpread(n, values[0] if values else math.nan, math.nan, math.nan, math.nan)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(student.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return SeedSpread(n, mean, sd, mean - reach, mean + reach)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
