"""A row is scored once a repeat, by a detector that saw nothing of its fold."""

import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError, MismatchError, NumericsError
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.detection.calibration import Calibrated
from fluoroscope.studies.hallucination.detection.cross_validation import (
    CrossValidation,
    LeakError,
    cross_validate,
    out_of_fold,
    without_training,
)
from fluoroscope.studies.hallucination.detection.detectors import Boosting, Fitted, Forest, Logistic
from fluoroscope.studies.hallucination.detection.scores import auroc, scored


def answers(n_groups=60, seed=0, d=6):
    """Features of which one tells something, labels, groups and ids."""
    luck = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), luck.integers(1, 5, size=n_groups))
    labels = luck.random(len(groups)) < 0.45
    features = luck.normal(size=(len(groups), d))
    features[:, 0] += labels
    return features, labels, groups, np.array([f"id{i:04d}" for i in range(len(groups))])


class Recording:
    """Remembers which rows it was fitted on, and which it scored."""

    def __init__(self):
        self.log = []

    def fit(self, x, labels, groups, seed):
        seen = [x[:, 0], None]
        self.log.append(seen)

        def scores(rows):
            seen[1] = rows[:, 0]
            return np.full(len(rows), 0.5)

        return Fitted(scores)


def test_every_row_is_scored_exactly_once_a_repeat_by_a_detector_that_had_no_row_of_its_group():
    _, labels, groups, ids = answers()
    detector, rows = Recording(), np.arange(len(labels))
    plan = CrossValidation(n_repeats=3)
    found = cross_validate(detector, rows[:, None].astype(float), labels, groups, plan, ids)
    assert found.scores.shape == found.folds.shape == (3, len(labels))
    assert len(detector.log) == 15
    for repeat in range(3):
        fits = detector.log[5 * repeat : 5 * repeat + 5]
        assert sorted(np.concatenate([test for _, test in fits])) == rows.tolist()
        for train, test in fits:
            train, test = train.astype(int), test.astype(int)
            assert len(train) + len(test) == len(rows)
            assert not set(groups[train]) & set(groups[test])
            assert len(np.unique(found.folds[repeat, test])) == 1
    assert any((found.folds[0] != found.folds[1]).tolist())


@pytest.mark.parametrize("name", [*DETECTORS, "calibrated"])
def test_poison_in_a_fold_changes_no_score_of_its_rows_but_the_poisoned(name):
    x, labels, groups, _ = answers(40)
    detector = Calibrated(Logistic()) if name == "calibrated" else DETECTORS.load(name)()
    if name == "words":
        x = np.array([f"word{int(row[0] * 3)} other{int(row[1] * 3)}" for row in x])
    fold = groups % 4
    clean, _ = out_of_fold(detector, x, labels, groups, fold, 0)
    # One row of fold 0 is garbage, and every label of the fold is turned.
    poisoned, turned = x.copy(), np.where(fold == 0, ~labels, labels)
    row = int(np.flatnonzero(fold == 0)[3])
    poisoned[row] = "word1 poison" if name == "words" else 1e6
    dirty, _ = out_of_fold(detector, poisoned, turned, groups, fold, 0)
    others = (fold == 0) & (np.arange(len(x)) != row)
    np.testing.assert_array_equal(dirty[others], clean[others])
    # And it does change what learns from it.
    assert (dirty[fold != 0] != clean[fold != 0]).any()


@pytest.mark.parametrize("detector", [Logistic(), Forest(20), Boosting()])
def test_results_follow_from_the_seed_and_not_from_the_order_of_rows(detector):
    x, labels, groups, ids = answers(40)
    order = np.random.default_rng(5).permutation(len(labels))
    plan = CrossValidation(n_repeats=2)
    one = cross_validate(detector, x, labels, groups, plan, ids)
    other = cross_validate(detector, x[order], labels[order], groups[order], plan, ids[order])
    np.testing.assert_array_equal(one.scores[:, order], other.scores)
    np.testing.assert_array_equal(one.folds[:, order], other.folds)
    again = cross_validate(detector, x, labels, groups, CrossValidation(seed=1, n_repeats=2), ids)
    assert (again.scores != one.scores).any()


def test_noise_is_at_chance_and_a_signal_is_found():
    x, labels, groups, ids = answers(150)
    plan = CrossValidation(n_repeats=2)
    signal = auroc(cross_validate(Logistic(), x, labels, groups, plan, ids), 0, 300)
    noise = auroc(cross_validate(Logistic(), x[:, 1:], labels, groups, plan, ids), 0, 300)
    assert signal.low > 0.65
    assert noise.low < 0.5 < noise.high


def test_chance_is_a_half_within_folds_and_less_when_folds_are_pooled():
    # Groups of one label each leave folds with other shares of it than their training rows: the
    # less made up a fold is, the higher is the base rate that it is scored by.
    within, pooled = [], []
    for seed in range(60):
        luck = np.random.default_rng(seed)
        groups = np.repeat(np.arange(30), luck.integers(1, 12, size=30))
        labels = (luck.random(30) < 0.5)[groups]
        labels[:1], labels[-1:] = True, False
        x = luck.normal(size=(len(groups), 2))
        try:
            plan = CrossValidation(seed, n_repeats=1)
            found = cross_validate(Logistic(penalties=(1e-3,)), x, labels, groups, plan)
        except ConfigError:
            continue
        within.append(auroc(found, 0, 1).value)
        pooled.append(auroc(scored(found.scores, labels, groups), 0, 1).value)
    error = np.std(within) / len(within) ** 0.5
    assert len(within) > 30
    assert abs(np.mean(within) - 0.5) < 3 * error
    assert np.mean(pooled) < 0.5 - 3 * np.std(pooled) / len(pooled) ** 0.5


def test_a_group_on_both_sides_is_refused_and_named():
    x, labels, groups, ids = answers()
    split = CrossValidation(folds_of=lambda groups, labels, n, seed: np.arange(len(labels)) % n)
    with pytest.raises(LeakError, match=r"Group \d+ is in folds 0 and \d.*Split by group"):
        cross_validate(Logistic(), x, labels, groups, split, ids)


def test_bad_rows_and_folds_say_so():
    x, labels, groups, ids = answers()
    plan = CrossValidation()
    with pytest.raises(ConfigError, match="5 folds need 5 groups with an answer that is made up"):
        cross_validate(Logistic(), x, groups < 4, groups, plan, ids)
    with pytest.raises(ConfigError, match=r"All .* labelled true"):
        cross_validate(Logistic(), x, labels & False, groups, plan, ids)
    with pytest.raises(NumericsError, match="have NaN"):
        cross_validate(Logistic(), x, np.where(labels, np.nan, 0.0), groups, plan, ids)
    with pytest.raises(ConfigError, match=r"Ids must be unique: .*'id0001'.* names 2 rows"):
        cross_validate(Logistic(), x, labels, groups, plan, np.array([ids[1], *ids[1:]]))
    with pytest.raises(MismatchError, match="must be of the same rows"):
        cross_validate(Logistic(), x[1:], labels, groups, plan, ids)
    few = CrossValidation(folds_of=lambda groups, labels, n, seed: groups % 3)
    with pytest.raises(ConfigError, match="one of the folds 0 to 4, all of them used"):
        cross_validate(Logistic(), x, labels, groups, few, ids)


def test_what_was_done_to_columns_is_said():
    x, labels, groups, ids = answers(40)
    x[:, 2] = 7
    x[::9, 4] = np.nan
    plan = CrossValidation(n_repeats=1)
    found = cross_validate(Logistic(), x, labels, groups, plan, ids)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("column 2 is constant in the training rows")
    assert "; column 4 is not known in some rows" in found.notes[0]
    x[:, [0, 1, 3]] = 7
    names = [f"the {word}" for word in ("first", "second", "third", "fourth", "fifth")]
    found = cross_validate(Logistic(), x[:, :5], labels, groups, plan, ids, names)
    assert found.notes[0].startswith("the first, the second, the third and 1 more are constant")
    assert "the fifth is not known" in found.notes[0]
    x = answers(40)[0]
    clean = cross_validate(Logistic(), x[:, :2], labels, groups, CrossValidation(n_repeats=1), ids)
    assert clean.notes == ()


def test_a_score_as_it_is_stands_in_the_folds_of_those_that_are_learnt():
    x, labels, groups, ids = answers()
    plan = CrossValidation(n_repeats=3)
    learnt = cross_validate(Logistic(), x, labels, groups, plan, ids)
    found = without_training(x[:, 0], labels, groups, plan, ids)
    np.testing.assert_array_equal(found.folds, learnt.folds)
    np.testing.assert_array_equal(found.scores, np.tile(x[:, 0], (3, 1)))
    # Rows in another order are in the same folds.
    order = np.random.default_rng(0).permutation(len(labels))
    mixed = without_training(x[order, 0], labels[order], groups[order], plan, ids[order])
    np.testing.assert_array_equal(mixed.folds, found.folds[:, order])
