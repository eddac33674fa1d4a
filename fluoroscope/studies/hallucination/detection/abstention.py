"""What a threshold that keeps a promise keeps, and what it costs, on answers that are new to it.

Axes: n rows, r repeats, g groups, b resamples.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from fluoroscope.studies.hallucination.detection.calibration import abstention_threshold
from fluoroscope.studies.hallucination.detection.scores import (
    Scored,
    over_resamples,
    percentile_interval,
)

MISS_RATES = (0.05, 0.1, 0.2)
_FIGURES = ("missed", "answered", "error", "true_answered")


def abstention_table(
    rows: Scored,
    seed: int,
    n_resamples: int = 2000,
    miss_rates: Sequence[float] = MISS_RATES,
) -> pl.DataFrame:
    """A row a promise, `promised`: the most that may be given of the made-up answers.

    `threshold` is for new questions, from the scores of all rows (the median over repeats; none
    where there are too few groups, `n_groups`, to promise anything). The figures are of each fold
    with the threshold that the other folds set (cross-conformal, Vovk 2015), with 95 % intervals:

    - `missed`: of the made-up answers to a question, the share that is given, each question alike.
      For one detector fixed beforehand the promise about it is exact; each fold has its own
      here, so it is measured;
    - `answered`: the share of all answers that is given;
    - `error`: the share made up among those, which nobody promised anything about;
    - `true_answered`: the share of the true answers that is given.
    """
    n_groups = int(rows.groups.max()) + 1
    table = []
    for promised in miss_rates:
        found = [abstention_threshold(s, rows.labels, rows.groups, promised) for s in rows.scores]
        threshold = float(np.median([one.threshold for one in found]))
        sums = _group_sums(rows, _given(rows, promised))
        values = _figures(np.ones((1, n_groups)) @ sums)[0]
        draws = over_resamples(rows, seed, n_resamples, lambda w, of=sums: _figures(w @ of))
        row: dict[str, float | int | None] = {
            "promised": promised,
            "threshold": threshold if np.isfinite(threshold) else None,
            "n_groups": found[0].n_groups,
        }
        for i, name in enumerate(_FIGURES):
            value, low, high = percentile_interval(float(values[i]), draws[:, i], n_groups)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        table.append(row)
    return pl.DataFrame(table, schema_overrides={"threshold": pl.Float64})


def _given(rows: Scored, miss_rate: float) -> Bool[np.ndarray, "r n"]:
    """Which answers are given, by thresholds of the other folds."""
    is_given = np.zeros(rows.scores.shape, bool)
    for repeat, (scores, folds) in enumerate(zip(rows.scores, rows.folds, strict=True)):
        for fold in np.unique(folds):
            is_test = folds == fold
            labels, groups = rows.labels[~is_test], rows.groups[~is_test]
            found = abstention_threshold(scores[~is_test], labels, groups, miss_rate)
            is_given[repeat, is_test] = scores[is_test] < found.threshold
    return is_given


def _group_sums(rows: Scored, is_given: Bool[np.ndarray, "r n"]) -> Float[np.ndarray, "g 7"]:
    """Of each group: rows, those given, the made-up and the true ones among these, the true ones,
    the share given of its made-up ones, and whether it has any.
    """
    labels, given = rows.labels, is_given.mean(0)
    columns = [np.ones(len(labels)), given, given * labels, given * ~labels, ~labels, labels]
    n, answered, errors, right, true, made_up = (
        np.bincount(rows.groups, column.astype(float)) for column in columns
    )
    has_made_up = made_up > 0
    missed = np.divide(errors, made_up, out=np.zeros_like(errors), where=has_made_up)
    return np.column_stack([n, answered, errors, right, true, missed, has_made_up])


def _figures(sums: Float[np.ndarray, "b 7"]) -> Float[np.ndarray, "b 4"]:
    n, answered, errors, right, true, missed, has_made_up = sums.T
    # What has nothing below it cannot be told.
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [missed / has_made_up, answered / n, errors / answered, right / true]
    return np.column_stack(shares)
