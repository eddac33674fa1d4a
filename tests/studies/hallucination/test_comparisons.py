"""Differences of two detectors are paired, and hold as often as they say."""

import math

import numpy as np
import pytest
from scipy.stats import rankdata

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.studies.hallucination.detection.comparisons import (
    compare,
    compare_all,
    headline,
    holm,
)
from fluoroscope.studies.hallucination.detection.permutation import exchange, permutation_test
from fluoroscope.studies.hallucination.detection.scores import aurocs, scored


def two_scores(n=600, seed=0, gain=0.5, per_group=1):
    """Scores that share most of their luck, the second with `gain` more signal."""
    luck = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    labels = luck.random(n) < 0.5
    shared = luck.normal(size=n) + luck.normal(size=n)[groups] * (per_group > 1)
    one = shared + 0.3 * luck.normal(size=n) + labels
    other = shared + 0.3 * luck.normal(size=n) + (1 + gain) * labels
    return scored(one, labels, groups), scored(other, labels, groups)


def delong(one, other):
    """AUROCs of two scores of independent rows and the standard error of their difference, from
    midranks (Sun and Xu 2014).
    """
    labels = one.labels
    places = []
    for scores in (one.scores[0], other.scores[0]):
        up, down = scores[labels], scores[~labels]
        everything = rankdata(np.concatenate([up, down]))
        over = (everything[: len(up)] - rankdata(up)) / len(down)
        under = 1 - (everything[len(up) :] - rankdata(down)) / len(up)
        places.append((over, under))
    area = [over.mean() for over, _ in places]
    variance = sum(
        np.var(first - second, ddof=1) / len(first)
        for first, second in zip(places[0], places[1], strict=True)
    )
    return area, variance**0.5


def test_the_paired_interval_of_independent_rows_is_that_of_delong():
    for seed in range(5):
        one, other = two_scores(seed=seed)
        found = compare(other, one, 0, 2000)
        area, error = delong(other, one)
        assert found.one.value == pytest.approx(area[0])
        assert found.difference.value == pytest.approx(area[0] - area[1])
        width = found.difference.high - found.difference.low
        assert width == pytest.approx(2 * 1.96 * error, rel=0.1)
        # Alone, each is far less certain than their difference.
        assert found.one.high - found.one.low > 1.3 * width


def test_intervals_of_a_difference_hold_the_truth_and_p_is_small_as_often_as_it_says():
    hits = n_small = 0
    for seed in range(200):
        one, other = two_scores(300, seed, gain=0.0, per_group=3)
        found = compare(other, one, seed, 300)
        hits += found.difference.low <= 0 <= found.difference.high
        n_small += found.p < 0.05
    assert 0.9 <= hits / 200 <= 0.985
    assert 0.01 <= n_small / 200 <= 0.1


def test_a_score_against_itself_differs_by_nothing():
    one, _ = two_scores()
    found = compare(one, one, 0, 100)
    assert found.difference.value == 0
    assert math.isnan(found.difference.low)
    assert math.isnan(found.p)


def test_holm_is_that_of_statsmodels_and_leaves_out_what_is_no_test():
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).random(20) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    with_gap = np.insert(p, 4, np.nan)
    np.testing.assert_allclose(np.delete(holm(with_gap), 4), holm(p))
    assert np.isnan(holm(with_gap)[4])


def test_several_comparisons_are_corrected_together():
    one, other = two_scores()
    table = compare_all(other, {"weak": one, "as weak": one}, 0, 400)
    weak = table.row(0, named=True)
    assert weak["p_holm"] == pytest.approx(2 * weak["p"])
    assert weak["low"] > 0
    assert table["n_compared"].to_list() == [2, 2]


def test_a_method_that_scores_the_same_is_no_test_that_others_pay_for():
    one, other = two_scores()
    table = compare_all(other, {"weak": one, "same": other}, 0, 400)
    weak, same = table.rows(named=True)
    assert weak["p_holm"] == weak["p"]
    assert math.isnan(same["p"])
    assert math.isnan(same["p_holm"])
    assert table["n_compared"].to_list() == [1, 1]


def test_the_headline_says_plainly_which_it_is():
    one, other = two_scores()
    adds, harms, neither = (
        headline(*each, 0, 400)
        for each in [(one, other), (other, one), two_scores(gain=0.0, seed=3)]
    )
    assert adds.is_useful
    # An exchange that does as well has the last word.
    assert headline(one, other, 0, 400, p_exchanged=0.01).is_useful
    doubted = headline(one, other, 0, 400, p_exchanged=0.2)
    assert not doubted.is_useful
    assert "is not shown" in doubted.sentence
    assert "p = 0.2" in doubted.sentence
    assert adds.sentence.startswith("Tracking adds to the baseline")
    assert not harms.is_useful
    assert harms.sentence.startswith("Tracking harms")
    assert not neither.is_useful
    assert neither.sentence.startswith("That tracking adds anything to the baseline is not shown")


def test_only_the_same_rows_in_the_same_folds_are_compared():
    one, other = two_scores()
    folds = one.groups[None] % 3
    trained = scored(other.scores, other.labels, other.groups, np.repeat(folds, 2, 0)[:1])
    with pytest.raises(MismatchError, match="their folds differ"):
        compare(trained, one, 0)
    assert compare(trained, one.in_folds(trained.folds), 0, 50).difference.value > 0
    with pytest.raises(ConfigError, match="learnt in folds"):
        trained.in_folds(trained.folds)
    with pytest.raises(MismatchError, match="their labels differ"):
        compare(one, two_scores(seed=1)[0], 0)


def test_an_exchange_moves_whole_groups_to_places_of_their_size():
    luck = np.random.default_rng(0)
    groups = luck.permutation(np.repeat(np.arange(40), luck.integers(1, 5, size=40)))
    order = exchange(groups, 0, 0)
    assert sorted(order) == list(range(len(groups)))
    came_from = {}
    for here, there in zip(groups, groups[order], strict=True):
        assert came_from.setdefault(here, there) == there
    assert len(set(came_from.values())) == 40
    assert any(here != there for here, there in came_from.items())
    assert (exchange(groups, 0, 0) == order).all()
    assert (exchange(groups, 0, 1) != order).any()


def test_answers_of_one_group_get_each_others_labels():
    # Each group has one true answer, listed first: groups alone would exchange nothing.
    groups = np.repeat(np.arange(20), 4)
    labels = np.tile([0, 1, 1, 1], 20)
    shuffled = labels[exchange(groups, 0, 0)].reshape(20, 4)
    assert (shuffled.sum(1) == 3).all()
    assert (shuffled != [0, 1, 1, 1]).any(1).sum() > 5


def test_p_of_permutations_is_uniform_without_signal_and_least_with_it():
    ones = np.ones((1, 30))

    def p_of(seed, strength):
        luck = np.random.default_rng(seed)
        groups = np.repeat(np.arange(30), 2)
        # Both answers of a group are alike in label and in score.
        labels = (luck.random(30) < 0.5)[groups]
        scores = np.repeat(luck.normal(size=30), 2) + strength * labels

        def statistic(order):
            return float(aurocs(scored(scores, labels[order], groups), ones)[0])

        return permutation_test(statistic, groups, 39, seed).p

    p = np.array([p_of(seed, 0.0) for seed in range(200)])
    assert 0.02 <= (p <= 0.05).mean() <= 0.085
    assert 0.4 < p.mean() < 0.6
    assert p_of(0, 5.0) == 1 / 40


def test_p_counts_the_finding_itself_and_a_constant_gives_1():
    found = permutation_test(lambda order: float(order[0] == 0), np.arange(100), 9, 0)
    assert found.p == (1 + (found.exchanged >= 1).sum()) / 10
    assert permutation_test(lambda order: 0.5, np.arange(100), 9, 0).p == 1
    with pytest.raises(ConfigError, match="1 exchange or more, got 0"):
        permutation_test(lambda order: 0.5, np.arange(100), 0, 0)


def test_one_of_fewer_repeats_is_compared_over_the_first_repeats_of_the_other():
    luck = np.random.default_rng(0)
    labels, groups = luck.random(200) < 0.5, np.arange(200) // 2
    folds = luck.integers(4, size=(3, 100)).repeat(2, axis=1)
    many = scored(luck.random((3, 200)) + labels, labels, groups, folds)
    few = scored(luck.random((1, 200)), labels, groups, folds[:1])
    row = compare_all(many, {"few": few}, 0, 50).row(0, named=True)
    expected = compare(many.first(1), few, 0, 50)
    assert row["difference"] == expected.difference.value
    with pytest.raises(MismatchError, match="folds"):
        compare(many, few, 0, 50)
