"""How good scores are: figures with intervals over groups, averaged over repeats.

A label is True for a made-up answer, and a score is high where a detector suspects one. In AUROC
only rows of one fold are compared: scores of different folds are of different models, and with
pooled folds chance is not 0.5, for what a model learns of base rates runs against the rows that it
was not shown (Forman and Scholz 2010).

Intervals resample whole groups (Davison and Hinkley 1997, section 3.8) with the scores as they are:
they tell how other questions would be scored by these detectors, and not what other training data
would have taught. Near chance that matters, for there each pair of rows counts twice, once each way
round: of 100 questions with 3 answers and a logistic detector, about 82 of 100 intervals hold 0.5
(Bates et al. 2024 have the same of cross-validation at large). `permutation.py` is exact there.

Axes: r repeats, n rows, b resamples, g groups.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.intervals import MIN_UNITS, Interval
from fluoroscope.core.seeding import stream
from fluoroscope.studies.hallucination.detection.rankings import Ranking, pairs_within

METRICS = (
    "auroc",
    "auprc",
    "auprc_true",
    "fpr_at_95_tpr",
    "aurc",
    "prr",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "brier",
    "pair_accuracy",
)
"""What `metrics` gives, in this order. `auprc_true` is of the answers that are not made up."""

_BLOCK = 40_000
"""Rows of resamples that are worked on at once: more do not stay in the cache."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of rows none of which its detector was trained on; `scored` makes one."""

    scores: Float[np.ndarray, "r n"]
    labels: Bool[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    """Numbered from 0 without gaps."""

    folds: Int[np.ndarray, "r n"]
    """Rows are compared within these; all in one for a score that needs no training."""

    def in_folds(self, folds: Int[np.ndarray, "r n"]) -> "Scored":
        """A score that needs no training, to be set beside one that was learnt in `folds`."""
        if len(self.scores) > 1 or self.folds.any():
            raise ConfigError("These scores were learnt in folds; they cannot be put into others.")
        scores = np.repeat(self.scores, len(folds), axis=0)
        return Scored(scores, self.labels, self.groups, folds)

    def first(self, n_repeats: int) -> "Scored":
        """Of the first repeats alone, to be set beside one that was judged in no more."""
        return Scored(self.scores[:n_repeats], self.labels, self.groups, self.folds[:n_repeats])

    def within(self, strata: Shaped[np.ndarray, " n"]) -> "Scored":
        """Compared are rows of one fold that are in one stratum as well."""
        index = np.unique(strata, return_inverse=True)[1]
        return Scored(
            self.scores, self.labels, self.groups, self.folds * (int(index.max()) + 1) + index
        )


class Confusion(NamedTuple):
    """Rows of each kind, averaged over repeats; positive is made up, or said to be."""

    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float


def scored(
    scores: Float[np.ndarray, "*r n"],
    labels: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    folds: Int[np.ndarray, "r n"] | None = None,
) -> Scored:
    """Scores (of one repeat or of several), checked; `labels` are 0 and 1 or truth values."""
    rows = np.atleast_2d(np.asarray(scores, np.float64))
    if not np.isfinite(rows).all():
        n = int((~np.isfinite(rows)).any(0).sum())
        raise NumericsError(f"Scores must be numbers; {n} of {rows.shape[1]} rows have none.")
    index = np.unique(groups, return_inverse=True)[1]
    within = np.zeros(rows.shape, np.int64) if folds is None else folds
    return Scored(rows, checked_labels(labels), index, within)


def checked_labels(labels: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Labels as truth values; raises where one is missing, or all are alike."""
    values = np.asarray(labels)
    if values.dtype.kind == "f" and np.isnan(values).any():
        n = int(np.isnan(values).sum())
        raise NumericsError(
            f"Every row needs a label; {n} of {len(values)} have NaN. Leave those rows out, and "
            "say how many."
        )
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise ConfigError(
            f"Labels are 0 (true) or 1 (made up), got {np.unique(values)[:5].tolist()}."
        )
    if len(np.unique(values)) < 2:
        kind = "made up" if len(values) and values[0] else "true"
        raise ConfigError(
            f"All {len(values)} answers are labelled {kind}: nothing can be told apart. Take more "
            "questions, or a model that is right more or less often."
        )
    return values.astype(bool)


def metrics(
    rows: Scored, seed: int, threshold: float | None = 0.5, n_resamples: int = 2000
) -> dict[str, Interval]:
    """Every figure of `METRICS` with its 95 % interval.

    A row is flagged where its score is at least `threshold`; None is for scores that are no
    probabilities, and leaves out all that takes them for such (NaN). `brier` is NaN where a score
    is not between 0 and 1, `precision` where nothing is flagged, `pair_accuracy` where no group has
    both labels. No ends from fewer than 10 groups, or where no resample differs.
    """
    judge = _Judge.of(rows, threshold)
    value = judge.values(np.ones((1, rows.groups.max() + 1)))[0]
    draws = over_resamples(rows, seed, n_resamples, judge.values)
    return {
        name: percentile_interval(float(value[i]), draws[:, i], int(rows.groups.max()) + 1)
        for i, name in enumerate(METRICS)
    }


def aurocs(rows: Scored, group_weights: Float[np.ndarray, "b g"]) -> Float[np.ndarray, " b"]:
    """AUROC within folds, averaged over repeats, with each group counted so often."""
    weights = group_weights[:, rows.groups]
    of_repeats = [
        Ranking.of(own, rows.labels, fold).counted(weights).auroc()
        for own, fold in zip(rows.scores, rows.folds, strict=True)
    ]
    return np.mean(of_repeats, axis=0)


def auroc(rows: Scored, seed: int, n_resamples: int = 2000) -> Interval:
    """AUROC alone, as in `metrics`."""
    n_groups = int(rows.groups.max()) + 1
    value = float(aurocs(rows, np.ones((1, n_groups)))[0])
    draws = over_resamples(rows, seed, n_resamples, lambda weights: aurocs(rows, weights)[:, None])
    return percentile_interval(value, draws[:, 0], n_groups)


def confusion(rows: Scored, threshold: float = 0.5) -> Confusion:
    """Who was flagged, and should have been."""
    is_flagged = rows.scores >= threshold
    kinds = [is_flagged & rows.labels, is_flagged & ~rows.labels]
    kinds += [~is_flagged & rows.labels, ~is_flagged & ~rows.labels]
    return Confusion(*(float(kind.sum(1).mean()) for kind in kinds))


def risk_coverage(rows: Scored) -> Float[np.ndarray, " n"]:
    """The share made up among the 1, 2, ... n answers with the lowest scores, over repeats."""
    curves = []
    for scores in rows.scores:
        ranking = Ranking.of(scores, rows.labels)
        sizes = np.diff(ranking.starts, append=len(scores))
        tied = np.add.reduceat(ranking.is_positive.astype(float), ranking.starts) / sizes
        curves.append(np.repeat(tied, sizes).cumsum() / np.arange(1, len(scores) + 1))
    return np.mean(curves, axis=0)


def over_resamples(
    rows: Scored,
    seed: int,
    n_resamples: int,
    values: Callable[[Float[np.ndarray, "b g"]], Float[np.ndarray, "b k"]],
) -> Float[np.ndarray, "all_b k"]:
    """`values` of every resample of the groups; the same resamples for the same groups and seed."""
    n_groups = int(rows.groups.max()) + 1
    random = stream(seed, "groups drawn again")
    found = []
    size = max(1, _BLOCK // len(rows.labels))
    for start in range(0, n_resamples, size):
        n = min(size, n_resamples - start)
        drawn = random.integers(n_groups, size=(n, n_groups)) + n_groups * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * n_groups).reshape(n, n_groups)
        found.append(values(counts.astype(np.float64)))
    return np.concatenate(found)


def percentile_interval(value: float, draws: Float[np.ndarray, " b"], n_groups: int) -> Interval:
    """Percentiles of resamples; no ends where there are few groups, or no draw differs."""
    told = draws[~np.isnan(draws)]
    if n_groups < MIN_UNITS or math.isnan(value) or len(told) == 0 or np.ptp(told) == 0:
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(told, (0.025, 0.975))
    return Interval(value, float(low), float(high))


class _Judge(NamedTuple):
    """What is the same for every resample: orders of rows, and sums over each group."""

    groups: Int[np.ndarray, " n"]
    within_folds: list[Ranking]
    pooled: list[Ranking]
    sums: list[Float[np.ndarray, "g 7"]]
    """Of each repeat: rows of the four kinds, squared error, pairs ranked right, pairs."""

    @classmethod
    def of(cls, rows: Scored, threshold: float | None) -> "_Judge":
        pairs = list(zip(rows.scores, rows.folds, strict=True))
        return cls(
            rows.groups,
            [Ranking.of(scores, rows.labels, fold) for scores, fold in pairs],
            [Ranking.of(scores, rows.labels) for scores in rows.scores],
            [_group_sums(scores, rows, threshold) for scores in rows.scores],
        )

    def values(self, group_weights: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b 12"]:
        weights = group_weights[:, self.groups]
        repeats = zip(self.within_folds, self.pooled, self.sums, strict=True)
        found = []
        for within, pooled, sums in repeats:
            counts = pooled.counted(weights)
            ranked = [
                within.counted(weights).auroc(),
                counts.average_precision(),
                counts.average_precision_of_negatives(),
                counts.false_positive_rate(at_recall=0.95),
                *counts.aurc(),
            ]
            found.append(np.column_stack([*ranked, _shares(group_weights @ sums)]))
        return np.mean(found, axis=0)


def _group_sums(
    scores: Float[np.ndarray, " n"], rows: Scored, threshold: float | None
) -> Float[np.ndarray, "g 7"]:
    labels, unknown = rows.labels, np.full(len(scores), np.nan)
    columns = [unknown] * 5
    if threshold is not None:
        is_flagged = scores >= threshold
        is_share = scores.min() >= 0 and scores.max() <= 1
        columns = [
            is_flagged & labels,
            is_flagged & ~labels,
            ~is_flagged & labels,
            ~is_flagged & ~labels,
            (scores - labels) ** 2 if is_share else unknown,
        ]
    by_group = [np.bincount(rows.groups, column.astype(float)) for column in columns]
    return np.column_stack([*by_group, *pairs_within(scores, labels, rows.groups)])


def _shares(sums: Float[np.ndarray, "b 7"]) -> Float[np.ndarray, "b 6"]:
    tp, fp, fn, tn, squares, right, pairs = sums.T
    n = tp + fp + fn + tn
    # What has nothing below it cannot be told.
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [
            (tp + tn) / n,
            tp / (tp + fp),
            tp / (tp + fn),
            2 * tp / (2 * tp + fp + fn),
            squares / n,
            right / pairs,
        ]
    return np.column_stack(shares)
