"""Figures of detectors are scikit-learn's, and their intervals hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.studies.hallucination.detection.rankings import Ranking
from fluoroscope.studies.hallucination.detection.scores import (
    METRICS,
    auroc,
    confusion,
    metrics,
    risk_coverage,
    scored,
)


def some_scores(n=400, n_groups=100, n_repeats=1, seed=0, decimals=2):
    """Scores with ties, of groups that are alike."""
    luck = np.random.default_rng(seed)
    groups = luck.integers(n_groups, size=n)
    labels = luck.random(n) < 0.4
    hidden = luck.normal(size=n_groups)[groups] * 0.5 + labels
    scores = norm.cdf(luck.normal(size=(n_repeats, n)) + hidden - 0.5)
    return np.round(scores, decimals), labels, groups


def values(rows, **options):
    return {name: found.value for name, found in metrics(rows, 0, n_resamples=1, **options).items()}


def test_figures_are_those_of_scikit_learn():
    scores, labels, groups = some_scores()
    one, flagged = scores[0], scores[0] >= 0.6
    found = values(scored(one, labels, groups), threshold=0.6)
    rates = roc_curve(labels, one, drop_intermediate=False)
    expected = {
        "auroc": roc_auc_score(labels, one),
        "auprc": average_precision_score(labels, one),
        "auprc_true": average_precision_score(~labels, -one),
        "fpr_at_95_tpr": rates[0][rates[1] >= 0.95].min(),
        "accuracy": accuracy_score(labels, flagged),
        "precision": precision_score(labels, flagged),
        "recall": recall_score(labels, flagged),
        "f1": f1_score(labels, flagged),
        "brier": brier_score_loss(labels, one),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert tuple(found) == METRICS
    counts = confusion(scored(one, labels, groups), 0.6)
    matrix = confusion_matrix(labels, flagged)
    assert [[counts[3], counts[1]], [counts[2], counts[0]]] == matrix.tolist()


@given(st.integers(0, 10**6))
def test_counting_rows_is_the_same_as_repeating_them(seed):
    luck = np.random.default_rng(seed)
    n = int(luck.integers(4, 30))
    scores, labels = luck.integers(6, size=n) / 6, luck.random(n) < 0.5
    labels[:2] = [True, False]
    strata, counts = luck.integers(3, size=n), luck.integers(0, 4, size=n)
    counts[:2] = 1
    rows = np.repeat(np.arange(n), counts)
    weights = counts[None].astype(float)
    one = Ranking.of(scores, labels).counted(weights)
    other = Ranking.of(scores[rows], labels[rows]).counted(np.ones((1, len(rows))))
    for figure in ("auroc", "average_precision", "average_precision_of_negatives", "aurc"):
        np.testing.assert_allclose(getattr(one, figure)(), getattr(other, figure)())
    assert one.false_positive_rate(0.8) == pytest.approx(other.false_positive_rate(0.8))
    # By hand: within strata, pairs by pairs.
    pairs = [
        (a > b) + (a == b) / 2
        for a, s, is_so in zip(scores[rows], strata[rows], labels[rows], strict=True)
        for b, t, other_is in zip(scores[rows], strata[rows], labels[rows], strict=True)
        if is_so and not other_is and s == t
    ]
    within = Ranking.of(scores, labels, strata).counted(weights).auroc()
    np.testing.assert_allclose(within, [np.mean(pairs) if pairs else np.nan])


def test_auroc_compares_rows_of_one_fold_only_and_figures_are_means_over_repeats():
    scores, labels, groups = some_scores(n_repeats=3)
    folds = np.stack([np.random.default_rng(i).integers(4, size=100)[groups] for i in range(3)])
    rows = scored(scores, labels, groups, folds)
    by_repeat = [values(scored(own, labels, groups)) for own in scores]
    found = values(rows)
    assert found["f1"] == pytest.approx(np.mean([one["f1"] for one in by_repeat]))
    assert found["prr"] == pytest.approx(np.mean([one["prr"] for one in by_repeat]))
    of_repeats = []
    for own, fold in zip(scores, folds, strict=True):
        parts = [fold == number for number in range(4)]
        pairs = [labels[part].sum() * (~labels[part]).sum() for part in parts]
        areas = [roc_auc_score(labels[part], own[part]) for part in parts]
        of_repeats.append(np.average(areas, weights=pairs))
    assert found["auroc"] == pytest.approx(np.mean(of_repeats))
    # What a fold as a whole scores higher by is no merit.
    shifted = scored(scores + 10 * folds, labels, groups, folds)
    assert auroc(shifted, 0, 1).value == pytest.approx(found["auroc"])


def test_pair_accuracy_compares_answers_to_one_question():
    labels = np.array([0, 1, 1, 0, 1, 0, 1])
    groups = np.array(["a", "a", "a", "b", "b", "c", "d"])
    # a: one pair right, one wrong. b: a tie. c and d have one label.
    scores = np.array([0.5, 0.9, 0.1, 0.3, 0.3, 0.99, 0.0])
    assert values(scored(scores, labels, groups))["pair_accuracy"] == pytest.approx(1.5 / 3)


def test_the_risk_coverage_curve_and_its_area_are_those_of_all_orders_of_ties():
    scores, labels = np.array([0.1, 0.5, 0.5, 0.5, 0.8]), np.array([False, True, False, True, True])
    rows = scored(scores, labels, np.arange(5))
    curve = risk_coverage(rows)
    np.testing.assert_allclose(curve, [0, (2 / 3) / 2, (4 / 3) / 3, 2 / 4, 3 / 5])
    found = values(rows)
    assert found["aurc"] == pytest.approx(curve.mean())
    oracle = np.mean([0, 0, 1 / 3, 2 / 4, 3 / 5])
    assert found["prr"] == pytest.approx((0.6 - curve.mean()) / (0.6 - oracle))


def test_rejection_is_worth_1_to_an_oracle_0_to_chance_and_less_to_who_is_wrong():
    labels = np.random.default_rng(0).random(300) < 0.3
    groups = np.arange(300)
    assert values(scored(labels * 0.9, labels, groups))["prr"] == pytest.approx(1)
    assert values(scored(np.full(300, 0.4), labels, groups))["prr"] == pytest.approx(0)
    assert values(scored(~labels * 0.9, labels, groups))["prr"] < 0


def test_intervals_hold_the_truth_where_rows_of_a_group_are_alike():
    # Scores are of a group as well as of a row; the truth is that of another 200,000 groups.
    def draw(seed, n_groups):
        luck = np.random.default_rng(seed)
        groups = np.repeat(np.arange(n_groups), 5)
        labels = (luck.random(n_groups) < 0.5)[groups] ^ (luck.random(5 * n_groups) < 0.1)
        shared = 2 * luck.normal(size=n_groups)[groups]
        return norm.cdf(luck.normal(size=5 * n_groups) + shared + labels), labels, groups

    truth = roc_auc_score(*draw(10**6, 200_000)[1::-1])
    hits = {"clusters": 0, "rows": 0}
    for seed in range(300):
        scores, labels, groups = draw(seed, 80)
        for name, unit in (("clusters", groups), ("rows", np.arange(400))):
            found = auroc(scored(scores, labels, unit), seed, 300)
            hits[name] += found.low <= truth <= found.high
    assert 0.915 <= hits["clusters"] / 300 <= 0.975, hits
    assert hits["rows"] / 300 < 0.85, hits


def test_results_depend_on_the_seed_and_not_on_the_order_of_rows():
    scores, labels, groups = some_scores(n_repeats=2)
    order = np.random.default_rng(1).permutation(len(labels))
    names = np.array([f"q{group}" for group in groups])
    one = metrics(scored(scores, labels, names), 3, n_resamples=50)
    other = metrics(scored(scores[:, order], labels[order], names[order]), 3, n_resamples=50)
    for name in METRICS:
        assert one[name] == pytest.approx(other[name], abs=1e-12), name
    again = metrics(scored(scores, labels, names), 4, n_resamples=50)
    assert again["auroc"].value == one["auroc"].value
    assert again["auroc"].low != one["auroc"].low


def test_what_cannot_be_told_is_nan():
    labels = np.arange(40) % 2 == 0
    found = metrics(scored(labels - 3.0, labels, np.arange(40)), 0, n_resamples=20)
    assert found["auroc"].value == 1
    # No resample differs: nothing tells how far other questions may.
    assert math.isnan(found["auroc"].low)
    for name in ("brier", "precision", "pair_accuracy"):
        assert math.isnan(found[name].value), name
    few = metrics(scored(np.arange(40) / 40, labels, np.arange(40) % 9), 0, n_resamples=20)
    assert math.isnan(few["auroc"].low)


def test_bad_labels_and_scores_say_so():
    groups = np.arange(4)
    with pytest.raises(NumericsError, match="1 of 4 have NaN"):
        scored(np.zeros(4), np.array([0, 1, np.nan, 1]), groups)
    with pytest.raises(ConfigError, match="All 4 answers are labelled made up"):
        scored(np.zeros(4), np.ones(4), groups)
    with pytest.raises(ConfigError, match=r"Labels are 0 \(true\) or 1"):
        scored(np.zeros(4), np.array([0, 1, 2, 1]), groups)
    with pytest.raises(NumericsError, match="2 of 4 rows have none"):
        scored(np.array([0, np.nan, np.inf, 1]), np.array([0, 1, 0, 1]), groups)


def test_among_answers_of_one_text_nothing_is_worth_knowing_a_text_again():
    _, labels, groups = some_scores()
    texts = np.random.default_rng(1).integers(12, size=len(labels))
    known = np.bincount(texts, labels)[texts] / np.bincount(texts)[texts]
    rows = scored(known, labels, groups)
    assert auroc(rows, 0, 2).value > 0.55
    assert auroc(rows.within(texts), 0, 2).value == 0.5
    # Beside it, what tells more than the text does is found, pair by pair.
    scores = labels + np.random.default_rng(2).normal(size=len(labels))
    right = n = 0.0
    for text in range(12):
        here = texts == text
        gaps = scores[here & labels][:, None] - scores[here & ~labels]
        right, n = right + (gaps > 0).sum(), n + gaps.size
    found = auroc(scored(scores, labels, groups).within(texts), 0, 2).value
    assert found == pytest.approx(right / n)


def test_scores_that_are_no_probabilities_have_figures_of_order_alone():
    scores, labels, groups = some_scores()
    found, threshold = (values(scored(scores, labels, groups), threshold=at) for at in (None, 0.5))
    of_threshold = {"accuracy", "precision", "recall", "f1", "brier"}
    assert {name for name in METRICS if math.isnan(found[name])} == of_threshold
    assert all(found[name] == threshold[name] for name in set(METRICS) - of_threshold)
