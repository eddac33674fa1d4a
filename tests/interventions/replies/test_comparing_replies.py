"""Paired comparisons are what counting, scipy and all the signs there are say."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest, permutation_test, ttest_1samp
from scipy.stats import t as student

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.intervals import clustered_mean_interval, paired_interval
from fluoroscope.data.tasks.samples import Score
from fluoroscope.interventions.replies.comparing import (
    Comparison,
    as_table,
    compare,
    compare_by,
    over_seeds,
    sign_flip_p,
)


class Said(NamedTuple):
    text: str
    score: Score
    numbers: tuple[float, ...] = ()


def said(text: str, value: float, *numbers: float, is_readable: bool = True) -> Said:
    return Said(text, Score(value, is_readable, ""), numbers)


def replies(scores, texts=None):
    texts = [str(score) for score in scores] if texts is None else texts
    return [said(*both) for both in zip(texts, scores, strict=True)]


def own_groups(n: int) -> list[str]:
    return [f"g{i}" for i in range(n)]


def test_the_side_effect_ratio_counts_only_replies_that_differ():
    before = [said("A", 1), said("A", 1), said("B", 0), said("C", 0), said("A", 1), said("D", 0)]
    after = [said("B", 0), said("A", 1), said("A", 1), said("A", 1), said("E", 1), said("D", 1)]
    found = compare(before, after, own_groups(6))
    assert (found.n_changed, found.n_worse, found.n_better) == (4, 1, 2)
    assert found.side_effect is not None
    assert found.side_effect.value == pytest.approx(1 / 3)
    wilson = binomtest(1, 3).proportion_ci(method="wilson")
    assert found.side_effect[1:] == pytest.approx((wilson.low, wilson.high))
    # Four scores changed, one of them under the same text: McNemar counts scores.
    assert found.p_mcnemar == pytest.approx(binomtest(3, 4).pvalue)
    assert (found.before.value, found.after.value) == (0.5, pytest.approx(5 / 6))


def test_options_are_compared_by_the_likeliest_where_there_is_no_text():
    before = [said("", 0.4, 0.4, 0.6), said("", 0.4, 0.4, 0.6)]
    after = [said("", 0.5, 0.45, 0.55), said("", 0.7, 0.7, 0.3)]
    found = compare(before, after, own_groups(2))
    assert (found.n_changed, found.n_better) == (1, 1)
    assert found.p_mcnemar is None
    assert found.p == found.p_flips


def test_nothing_changed_has_no_side_effect_ratio_and_is_not_called_certain():
    same = replies([1, 0] * 50)
    found = compare(same, same, own_groups(100))
    assert found.side_effect is None
    assert (found.p, found.n_changed) == (1, 0)
    assert found.difference.low < 0 < found.difference.high
    assert found.shift(0.05) == "within"
    assert found.shift(0.001) == "open"
    # Of twenty groups of five samples that are all alike, twenty tell something.
    grouped = compare(same, same, [f"g{i // 5}" for i in range(100)])
    assert grouped.difference == paired_interval(0, 0, 20)


def test_a_gain_of_form_is_counted_apart_from_other_gains():
    before = [said("?", 0, is_readable=False), said("B", 0), said("A", 1)]
    after = [said("A", 1), said("A", 1), said("?", 0, is_readable=False)]
    found = compare(before, after, own_groups(3))
    assert (found.n_better, found.n_better_by_form, found.n_worse) == (2, 1, 1)
    assert found.unreadable_before.value == pytest.approx(1 / 3)


def test_an_interval_within_the_margin_says_unchanged_and_a_wide_one_says_nothing():
    random = np.random.default_rng(0)
    before = random.random(400)
    for shift, n, expected in [(0.0, 400, "within"), (0.3, 400, "beyond"), (0.0, 12, "open")]:
        after = np.clip(before + shift + 0.1 * random.standard_normal(400), 0, 1)
        found = compare(replies(before[:n]), replies(after[:n]), own_groups(n))
        assert found.shift(0.03) == expected
    few = compare(replies([0.5] * 3), replies([0.5, 0.4, 0.6]), own_groups(3))
    assert few.shift(1.0) == "open"
    assert "no interval" in few.statement(0.05)
    with pytest.raises(ConfigError, match="above 0"):
        few.shift(0)


def test_samples_that_are_copies_of_each_other_tell_no_more_than_one_of_them():
    random = np.random.default_rng(1)
    before, after = (random.random((2, 40)) < [[0.4], [0.6]]).astype(float)
    alone = compare(replies(before), replies(after), own_groups(40))
    groups = [name for name in own_groups(40) for _ in range(6)]
    copies = compare(replies(before.repeat(6)), replies(after.repeat(6)), groups)
    wide, copied = alone.difference, copies.difference
    assert copied.value == pytest.approx(wide.value)
    assert copied.high - copied.low > 0.9 * (wide.high - wide.low)
    assert copies.p == copies.p_flips
    assert copies.p == pytest.approx(alone.p, abs=0.03)
    # Taken for samples of their own they would seem to prove something.
    assert copies.p_mcnemar < copies.p


def test_groups_do_not_narrow_the_interval_of_samples_that_stand_alone():
    # Gains and losses that cancel in every group but one would make groups look exact.
    before = replies([1, 0] * 30)
    after = replies([0, 1] * 29 + [1, 1])
    grouped = compare(before, after, [f"g{i // 2}" for i in range(60)]).difference
    alone = compare(before, after, own_groups(60)).difference
    assert (grouped.low, grouped.high) == (alone.low, alone.high)


def test_intervals_of_graded_scores_are_those_over_groups():
    random = np.random.default_rng(2)
    before, after = random.random((2, 60))
    groups = [f"g{i // 3}" for i in range(60)]
    found = compare(replies(before), replies(after), groups)
    expected = clustered_mean_interval(after - before, np.arange(60) // 3)
    assert found.difference == pytest.approx(expected)


def test_random_signs_are_all_signs_where_they_are_few():
    sums = np.array([0.3, -0.1, 0.25, 0.4, -0.05, 0.2])
    total = abs(sums.sum()) - 1e-12
    every = itertools.product((-1, 1), repeat=6)
    exact = np.mean([abs((np.array(signs) * sums).sum()) >= total for signs in every])
    assert sign_flip_p(sums, np.arange(6), 0) == pytest.approx(exact)
    found = permutation_test(
        (sums,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(sums, np.arange(6), 0) == pytest.approx(found.pvalue)


def test_random_signs_of_scores_of_0_and_1_are_the_exact_mcnemar_test():
    for gained, lost in [(0, 0), (3, 1), (9, 2), (5, 5), (30, 14)]:
        after = replies([1] * gained + [0] * lost + [1] * 20)
        before = replies([0] * gained + [1] * lost + [1] * 20)
        found = compare(before, after, own_groups(len(before)))
        # All signs of up to 13 changes; random ones of more.
        tolerance = 1e-12 if gained + lost <= 13 else 0.006
        assert found.p_flips == pytest.approx(found.p_mcnemar, abs=tolerance)


def test_p_of_groups_that_do_not_change_on_average_is_below_5_percent_in_about_5_percent():
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 4)
    p = [
        sign_flip_p((random.normal(size=20).repeat(4) + random.normal(size=80)), groups, seed)
        for seed in range(200)
    ]
    n_small = int((np.array(p) < 0.05).sum())
    assert binomtest(n_small, 200, 0.05).pvalue > 0.001


def test_the_interval_of_the_difference_holds_what_is_true_in_about_95_percent():
    random = np.random.default_rng(4)
    n_held, n_trials = 0, 150
    groups = [f"g{i // 4}" for i in range(120)]
    for _ in range(n_trials):
        shared = random.random(30).repeat(4)
        before = (random.random(120) < shared).astype(float)
        after = (random.random(120) < np.clip(shared * 0.8, 0, 1)).astype(float)
        difference = compare(replies(before), replies(after), groups).difference
        n_held += difference.low <= -0.1 <= difference.high
    assert binomtest(n_held, n_trials, 0.95).pvalue > 0.001


def test_the_table_has_all_samples_first_and_q_over_categories():
    before = replies([0, 0, 0, 0, 1, 1, 1, 1] * 3)
    after = replies([1, 1, 1, 1, 1, 1, 1, 1] * 3)
    categories = ["a", "a", "a", "a", "b", "b", "b", "b"] * 3
    table = compare_by(before, after, own_groups(24), categories)
    assert table["category"].to_list() == ["all", "a", "b"]
    assert table["n"].to_list() == [24, 12, 12]
    assert table["difference"].to_list() == [0.5, 1, 0]
    assert table["side_effect"].to_list() == [0, 0, None]
    p = binomtest(12, 12).pvalue
    assert table["q"].to_list() == [None, pytest.approx(2 * p), 1]
    assert not table.select(pl.col(pl.Float64).is_nan().any()).transpose()["column_0"].any()
    part = compare(before[:0] + before[4:8] * 3, after[4:8] * 3, own_groups(12))
    assert part.row() | {"category": "b", "q": 1} == table.row(2, named=True)
    assert as_table({"x": part}, "method")["side_effect"].dtype == pl.Float64


def test_seeds_are_spread_as_student_says():
    random = np.random.default_rng(5)
    comparisons: list[Comparison] = []
    for _ in range(5):
        before, after = random.integers(2, size=(2, 50)).astype(float)
        comparisons.append(compare(replies(before), replies(after), own_groups(50)))
    found = over_seeds(comparisons)["difference"]
    values = [one.difference.value for one in comparisons]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert found[3:] == pytest.approx((expected.low, expected.high))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    # Five values are few, and Student's t says how few.
    assert found.high - found.mean == pytest.approx(student.ppf(0.975, 4) * found.sd / 5**0.5)
    alone = over_seeds(comparisons[:1])["difference"]
    assert alone.mean == values[0]
    assert math.isnan(alone.low)


def test_a_seed_in_which_nothing_changed_has_no_side_effect_ratio_to_average():
    same = compare(replies([1, 0]), replies([1, 0]), own_groups(2))
    worse = compare(replies([1, 0]), replies([0, 0]), own_groups(2))
    found = over_seeds([same, worse, worse])
    assert (found["side_effect"].n_seeds, found["side_effect"].mean) == (2, 1)
    assert found["difference"].n_seeds == 3


def test_what_cannot_be_compared_says_why():
    one = replies([1])
    with pytest.raises(ConfigError, match="1 replies before, 2 after, and 1 groups"):
        compare(one, replies([1, 0]), ["g"])
    with pytest.raises(ConfigError, match="no reply"):
        compare([], [], [])
    with pytest.raises(NumericsError, match=r"reply 0 after .* has 1\.5"):
        compare(one, replies([1.5]), ["g"])
    with pytest.raises(NumericsError, match="reply 0 before"):
        compare(replies([math.nan]), one, ["g"])
    with pytest.raises(ConfigError, match="2 of them for 1"):
        compare_by(one, one, ["g"], ["a", "b"])
    with pytest.raises(ConfigError, match="called 'all'"):
        compare_by(one, one, ["g"], ["all"])
