"""Thresholds keep their promise on answers that are new to them, and say what it costs."""

import numpy as np
import pytest
from scipy.special import expit

from fluoroscope.studies.hallucination.detection.abstention import abstention_table
from fluoroscope.studies.hallucination.detection.calibration import abstention_threshold
from fluoroscope.studies.hallucination.detection.scores import scored


def some_scores(n=600, n_folds=5, n_repeats=1, seed=0):
    luck = np.random.default_rng(seed)
    labels = luck.random(n) < 0.4
    groups = np.arange(n) // 2
    scores = expit(luck.normal(size=(n_repeats, n)) + 1.5 * labels)
    folds = luck.integers(n_folds, size=(n_repeats, n // 2)).repeat(2, axis=1)
    return scored(scores, labels, groups, folds)


def test_figures_are_those_of_each_fold_with_the_threshold_of_the_others():
    rows = some_scores()
    table = abstention_table(rows, 0, n_resamples=50, miss_rates=(0.1,))
    given = np.zeros(600, bool)
    for fold in range(5):
        test = rows.folds[0] == fold
        others = (part[~test] for part in (rows.scores[0], rows.labels, rows.groups))
        given[test] = rows.scores[0, test] < abstention_threshold(*others, 0.1).threshold
    row = table.row(0, named=True)
    made_up = [group for group in range(300) if rows.labels[rows.groups == group].any()]
    missed = [given[(rows.groups == group) & rows.labels].mean() for group in made_up]
    assert row["missed"] == pytest.approx(np.mean(missed))
    assert row["answered"] == pytest.approx(given.mean())
    assert row["error"] == pytest.approx(rows.labels[given].mean())
    assert row["true_answered"] == pytest.approx(given[~rows.labels].mean())
    everything = abstention_threshold(rows.scores[0], rows.labels, rows.groups, 0.1)
    assert row["threshold"] == everything.threshold
    assert row["n_groups"] == len(made_up)
    assert row["missed_low"] < row["missed"] < row["missed_high"]


def test_what_is_promised_is_what_is_missed_on_average_over_data():
    tables = [abstention_table(some_scores(seed=seed), 0, 2) for seed in range(40)]
    missed = np.mean([table["missed"].to_numpy() for table in tables], axis=0)
    np.testing.assert_allclose(missed, [0.05, 0.1, 0.2], atol=0.012)
    # A smaller promise is dearer.
    answered = np.mean([table["answered"].to_numpy() for table in tables], axis=0)
    assert (np.diff(answered) > 0.05).all()


def test_where_too_few_groups_promise_anything_nothing_is_given():
    row = abstention_table(some_scores(16), 0, 20, (0.05,)).row(0, named=True)
    assert row["threshold"] is None
    assert row["answered"] == row["missed"] == 0
    assert np.isnan(row["error"])
