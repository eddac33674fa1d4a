"""Quality of texts by hand, and the laws of fronts and of searches for a strength."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.core.errors import ConfigError, MismatchError, NumericsError
from fluoroscope.interventions.replies.pareto import pareto_front
from fluoroscope.interventions.replies.quality import (
    distinct_n,
    norm_share,
    perplexity,
    quality,
    repetition,
)
from fluoroscope.interventions.replies.strengths import Guard, Judged, search_strengths
from fluoroscope.models.hook_points import HookPoint


def own_groups(n: int) -> list[str]:
    return [f"g{i:03}" for i in range(n)]


def test_distinct_n_counts_different_n_grams_per_word():
    texts = ["a b a b", "a b c", ""]
    # a, b, c of 7 words; ab, ba, bc of 7 words.
    assert distinct_n(texts, 1, own_groups(3)).value == pytest.approx(3 / 7)
    assert distinct_n(texts, 2, own_groups(3)).value == pytest.approx(3 / 7)
    assert distinct_n(texts, 1, own_groups(3), max_words=1).value == pytest.approx(1 / 2)
    assert distinct_n([[1, 2, 1], [2]], 1, own_groups(2)).value == pytest.approx(2 / 4)
    assert math.isnan(distinct_n(["", ""], 1, own_groups(2)).value)


def test_the_interval_of_distinct_n_is_what_leaving_out_each_group_gives():
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(40, size=n))) for n in range(4, 40)]
    groups = [f"g{i // 3}" for i in range(36)]
    found = distinct_n(texts, 2, groups)
    without = []
    for left_out in dict.fromkeys(groups):
        kept = [text for text, group in zip(texts, groups, strict=True) if group != left_out]
        without.append(distinct_n(kept, 2, own_groups(len(kept))).value)
    sd = (11 / 12 * ((without - np.mean(without)) ** 2).sum()) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(2.200985 * sd, rel=1e-6)


def test_repetition_is_the_share_of_n_grams_that_came_before():
    assert repetition("a b c d e f") == 0
    # Five 4-grams, of which the last four are the first again.
    assert repetition("la " * 8) == pytest.approx(4 / 5)
    assert repetition("a b a b", n=2) == pytest.approx(1 / 3)
    assert repetition("a b") == 0


def test_perplexity_of_tokens_with_one_probability_is_one_over_it():
    logs = [[math.log(1 / 8)] * n for n in (3, 0, 5)]
    assert perplexity(logs, own_groups(3)).value == pytest.approx(8)
    random = np.random.default_rng(1)
    logs = [list(-random.exponential(2.0, size=size)) for size in random.integers(1, 9, size=40)]
    found = perplexity(logs, own_groups(40))
    mean = np.mean(list(itertools.chain(*logs)))
    assert found.value == pytest.approx(math.exp(-mean))
    assert 0 < found.low < found.value < found.high
    with pytest.raises(NumericsError, match="not finite"):
        perplexity([[-math.inf]], ["g"])
    with pytest.raises(ConfigError, match="no token"):
        perplexity([[]], ["g"])


def test_quality_puts_all_of_it_together():
    texts = ["a b c d", "a a a a a a"] * 6
    found = quality(texts, [True, False] * 6, own_groups(12))
    assert found.n_words.value == 5
    assert found.unreadable.value == 0.5
    assert found.repetition.value == pytest.approx((2 / 3) / 2)
    assert found.distinct_1.value == pytest.approx(4 / 60)
    assert found.unreadable.low < 0.5 < found.unreadable.high
    with pytest.raises(ConfigError, match="readability"):
        quality(texts, [True], own_groups(12))
    with pytest.raises(ConfigError, match="list of texts"):
        quality([], [], [])


def test_the_norm_share_is_the_largest_of_all_hook_points():
    first, second = HookPoint("0.resid_post"), HookPoint("1.resid_post")
    added = {first: torch.tensor([3.0, 4.0]), second: torch.tensor([0.0, 1.0])}
    assert norm_share(added, {first: 10.0, second: 1.0}) == 1
    assert norm_share({}, {}) == 0
    with pytest.raises(MismatchError, match=r"1\.resid_post is not known"):
        norm_share(added, {first: 10.0})
    with pytest.raises(NumericsError, match="above 0"):
        norm_share(added, {first: 0.0, second: 1.0})


numbers = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=12)


@given(numbers)
def test_a_point_is_on_the_front_if_nothing_is_better_in_one_way_and_as_good_in_the_other(points):
    gain = np.array([gain for gain, _ in points], float)
    cost = np.array([cost for _, cost in points], float)
    for found, (one, price) in zip(pareto_front(gain, cost), points, strict=True):
        is_beaten = any(
            other >= one and less <= price and (other, less) != (one, price)
            for other, less in points
        )
        assert found == (not is_beaten)


def test_what_is_not_known_is_on_no_front():
    gain, cost = np.array([np.nan, 1.0, 2.0, np.inf]), np.array([0.0, 1.0, np.nan, 9.0])
    assert pareto_front(gain, cost).tolist() == [False, True, False, True]


def world(peak: float, limit: float = math.inf):
    """Scores that are highest at `peak`; texts that fall apart beyond `limit`."""

    def judge(strength: float) -> Judged:
        return Judged(-abs(strength - peak), 9.0 if abs(strength) > limit else 1.0, 0.1, 0.0)

    return judge


def test_the_search_finds_the_best_and_draws_closer_with_refinements():
    coarse = search_strengths([1, 2, 4, 8], world(2.9), Guard())
    assert (coarse.best.strength, coarse.is_any_better) == (2, True)
    fine = search_strengths([1, 2, 4, 8], world(2.9), Guard(), n_refinements=4)
    assert abs(fine.best.strength - 2.9) < 0.1
    assert [one.strength for one in fine.tried] == sorted({one.strength for one in fine.tried})
    assert fine.tried[0].strength == 0


def test_a_refused_strength_is_never_chosen_and_says_why():
    found = search_strengths([1, 2, 4, 8], world(6, limit=3), Guard(), n_refinements=3)
    assert found.best.refused is None
    assert 2.7 < found.best.strength <= 3
    refused = {one.strength: one.refused for one in found.tried if one.refused}
    assert set(refused) >= {4, 8}
    assert refused[4] == "the perplexity ratio is 9, above 2"


def test_where_nothing_helps_strength_0_is_returned_even_if_it_repeats_itself():
    def judge(strength: float) -> Judged:
        return Judged(1 - strength, None, strength, 0.9)

    found = search_strengths([0.5, 1], judge, Guard(), n_refinements=1)
    assert found.best == found.unsteered
    assert not found.is_any_better
    # Neither was refused for what unsteered replies do as well.
    assert all(one.refused is None for one in found.tried)


def test_the_weaker_of_equal_strengths_wins():
    def judge(strength: float) -> Judged:
        return Judged(float(abs(strength) >= 1))

    assert search_strengths([-3, 1, 2, 3], judge, Guard()).best.strength == 1
    assert search_strengths([-1, 1], judge, Guard()).best.strength == -1


def test_every_limit_refuses_by_itself_and_a_nan_does_not_pass():
    guard, unsteered = Guard(), Judged(0.0, 1.0, 0.0, 0.2)
    assert guard.check(Judged(0.0, 2.0, 1.0, 0.3), unsteered) is None
    assert guard.check(Judged(0.0, 2.1, 1.0, 0.3), unsteered).startswith("the perplexity ratio")
    assert guard.check(Judged(0.0, 2.0, 1.1, 0.3), unsteered).startswith("the norm")
    assert guard.check(Judged(0.0, 2.0, 1.0, 0.31), unsteered).startswith("the share of rep")
    assert "nan" in guard.check(Judged(0.0, math.nan), unsteered)
    assert guard.check(Judged(0.0), unsteered) is None
    both = guard.check(Judged(0.0, 3.0, 3.0, 0.0), unsteered)
    assert both == "the perplexity ratio is 3, above 2; the norm of what is added is 3, above 1"


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8))
def test_the_best_is_the_highest_score_that_is_allowed(wished):
    table = {0.0: (2, True)} | {i + 1.0: one for i, one in enumerate(wished)}

    def judge(strength: float) -> Judged:
        score, is_allowed = table[strength]
        return Judged(score, 1.0 if is_allowed else 5.0)

    found = search_strengths(sorted(table), judge, Guard())
    highest = max(score for score, is_allowed in table.values() if is_allowed)
    assert found.best.judged.score == highest
    assert found.best.strength == min(s for s, one in table.items() if one == (highest, True))
    assert found.is_any_better == (highest > 2)


def test_strengths_that_cannot_be_searched_say_why():
    for wrong in ([], [2, 1], [1, 1], [1, math.nan]):
        with pytest.raises(ConfigError, match="rising order"):
            search_strengths(wrong, world(1), Guard())
    with pytest.raises(ConfigError, match="Only strength 0"):
        search_strengths([0], world(1), Guard())
    with pytest.raises(ConfigError, match="n_refinements"):
        search_strengths([1], world(1), Guard(), n_refinements=-1)
    with pytest.raises(NumericsError, match="strength 1 is nan"):
        search_strengths([1], lambda s: Judged(math.nan if s else 0.0), Guard())
