"""Which of two detectors is better: paired intervals of a difference of AUROC.

Both are scored on the same rows in the same folds, and both are resampled by the same draws of
groups, so what makes a question hard for both is not taken for a difference. With one row a group
the interval agrees with that of DeLong et al. (1988), which holds for independent rows only.

Eight columns of noise beside a baseline that tells something were taken for useful in none of 250
simulated sets of 100 questions (they do harm), and beside one that tells nothing in 24, where 6
were to be expected: there a headline needs the p of `permutation.py` as well.

Axes: n rows, b resamples.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.errors import MismatchError
from fluoroscope.core.intervals import Interval
from fluoroscope.studies.hallucination.detection.scores import (
    Scored,
    aurocs,
    over_resamples,
    percentile_interval,
)

_ALPHA = 0.05


class Comparison(NamedTuple):
    """AUROC of two detectors, and by how much the first is ahead."""

    one: Interval
    other: Interval
    difference: Interval
    p: float
    """Two-sided, of no difference: resamples on the far side of 0, doubled. NaN where none differs
    from 0, for then nothing was tested.
    """


class Headline(NamedTuple):
    """Whether tracking tells what the baseline does not."""

    comparison: Comparison
    """Baseline + tracking, and the baseline."""

    is_useful: bool
    """The whole interval of the difference is above 0, and p at most 0.05 where it was asked."""

    sentence: str


def compare(one: Scored, other: Scored, seed: int, n_resamples: int = 2000) -> Comparison:
    """AUROC of `one` minus that of `other`, by a cluster bootstrap that is paired."""
    check_same_rows(one, other)
    return compare_groups(one, other, seed, n_resamples)


def compare_groups(one: Scored, other: Scored, seed: int, n_resamples: int = 2000) -> Comparison:
    """The same of two that score different rows of the same groups, drawn again together."""
    n_groups = int(one.groups.max()) + 1

    def both(weights: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b 2"]:
        return np.column_stack([aurocs(one, weights), aurocs(other, weights)])

    first, second = both(np.ones((1, n_groups)))[0]
    draws = over_resamples(one, seed, n_resamples, both)
    difference = draws[:, 0] - draws[:, 1]
    return Comparison(
        percentile_interval(float(first), draws[:, 0], n_groups),
        percentile_interval(float(second), draws[:, 1], n_groups),
        percentile_interval(float(first - second), difference, n_groups),
        _p_of_none(difference),
    )


def compare_all(
    candidate: Scored, others: Mapping[str, Scored], seed: int, n_resamples: int = 2000
) -> pl.DataFrame:
    """`candidate` against each of `others`: a row each, p after Holm (1979) over all of them.

    One that was judged in fewer repeats is compared over the first of those of `candidate`.

    Columns: other, auroc of it, difference with its interval, p, p_holm, n_compared: the p that
    there are, for two that score the same have none.
    """
    found = {
        name: compare(candidate.first(len(other.scores)), other, seed, n_resamples)
        for name, other in others.items()
    }
    p_values = np.array([each.p for each in found.values()], float)
    adjusted, n_compared = holm(p_values), int((~np.isnan(p_values)).sum())
    rows = [
        (name, *each.other, *each.difference, each.p, float(p), n_compared)
        for (name, each), p in zip(found.items(), adjusted, strict=True)
    ]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def headline(
    baseline: Scored,
    combined: Scored,
    seed: int,
    n_resamples: int = 2000,
    p_exchanged: float | None = None,
    added: str = "tracking",
) -> Headline:
    """Baseline + tracking against the baseline, and what is to be said of it.

    `p_exchanged` is of a permutation test that exchanges what is added between groups.
    """
    found = compare(combined, baseline, seed, n_resamples)
    value, low, high = found.difference
    ends = "no interval can be told" if math.isnan(low) else f"{low:+.3f}, {high:+.3f}"
    by = f"by {value:+.3f} [{ends}], to {found.one.value:.3f}"
    if p_exchanged is not None:
        by += f" (p = {p_exchanged:.3g} by exchange between groups)"
    is_useful = bool(low > 0) and (p_exchanged is None or p_exchanged <= _ALPHA)
    if is_useful:
        said = f"{added.capitalize()} adds to the baseline: it raises AUROC {by}."
    elif high < 0:
        said = f"{added.capitalize()} harms the baseline: it changes AUROC {by}."
    else:
        said = f"That {added} adds anything to the baseline is not shown: AUROC changes {by}."
    return Headline(found, is_useful, said)


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Each p such that to reject those below a level errs at all no more often (Holm 1979).

    A NaN is no test: it stays NaN and does not count.
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]
    times = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * times), 1)
    return adjusted


def check_same_rows(one: Scored, other: Scored) -> None:
    """Raises unless both score the same rows in the same folds."""
    for what in ("labels", "groups", "folds"):
        mine, theirs = getattr(one, what), getattr(other, what)
        if mine.shape != theirs.shape or not np.array_equal(mine, theirs):
            raise MismatchError(
                f"Two detectors are compared on the same rows in the same folds; their {what} "
                f"differ ({list(mine.shape)} and {list(theirs.shape)}). Judge both by one "
                "protocol, and a score that needs no training through `in_folds`."
            )


def _p_of_none(difference: Float[np.ndarray, " b"]) -> float:
    told = difference[~np.isnan(difference)]
    if not told.any():
        return float("nan")
    smaller = min((told <= 0).sum(), (told >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(told) + 1)))


_SCHEMA = {
    "other": pl.String,
    "auroc": pl.Float64,
    "auroc_low": pl.Float64,
    "auroc_high": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "n_compared": pl.Int64,
}
