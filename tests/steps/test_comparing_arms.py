"""Intervals over groups of examples and seeds, paired differences, and what counts as better."""

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import Interval, clustered_share_interval
from fluoroscope.steps.comparing_arms import (
    SCORES,
    Draws,
    Judged,
    compare_accuracy,
    outcome_of,
    score_intervals,
)
from fluoroscope.studies.plugin.metrics import scores_of


@pytest.fixture(autouse=True)
def few_flips(monkeypatch):
    monkeypatch.setattr("fluoroscope.interventions.replies.comparing.N_FLIPS", 199)


def judged(right, labels=None):
    """Of two classes, from what was right, a row a seed."""
    right = np.atleast_2d(np.asarray(right, dtype=bool))
    labels = np.zeros(right.shape[1], dtype=np.int64) if labels is None else labels
    return Judged(labels, np.where(right, labels, 1 - labels), np.where(right, 0.1, 2.0), 2)


def alone(n):
    return [str(i) for i in range(n)]


def test_scores_of_each_seed_are_those_of_the_metrics():
    luck = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50, 3, generator=luck)
    labels = torch.randint(0, 2, (50,), generator=luck)  # the third class is only predicted
    losses = -torch.log_softmax(logits.double(), -1)[:, torch.arange(50), labels]
    one = Judged(labels.numpy(), logits.argmax(-1).numpy(), losses.numpy(), 3)
    for seed in range(2):
        wanted = scores_of(logits[seed], labels)
        found = {name: values[seed] for name, values in one.by_seed().items()}
        assert found == pytest.approx({name: wanted[name] for name in SCORES})


def test_intervals_are_around_the_mean_over_seeds():
    right = np.random.default_rng(0).random((3, 200)) < [[0.7], [0.8], [0.9]]
    one = judged(right, np.arange(200) % 2)
    for name, (value, low, high) in score_intervals(one, Draws(alone(200), 3, 0)).items():
        assert value == pytest.approx(one.by_seed()[name].mean())
        assert low < value < high


def test_examples_that_are_twice_in_their_group_tell_no_more():
    right = np.random.default_rng(1).random((2, 40)) < 0.8
    once = score_intervals(judged(right), Draws(alone(40), 2, 0))
    both = judged(np.concatenate([right, right], axis=1))
    twice = score_intervals(both, Draws(alone(40) * 2, 2, 0))
    for name in SCORES:
        assert twice[name] == pytest.approx(once[name], nan_ok=True)


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_widen():
    right = np.random.default_rng(2).random(100) < 0.8
    one = score_intervals(judged(right), Draws(alone(100), 1, 0))["accuracy"]
    alike = score_intervals(judged([right] * 3), Draws(alone(100), 3, 0))["accuracy"]
    assert alike == pytest.approx(one)
    worse = right & (np.arange(100) % 3 > 0)
    apart = score_intervals(judged([right, worse]), Draws(alone(100), 2, 0))["accuracy"]
    assert apart.high - apart.low > 1.5 * (one.high - one.low)


def test_draws_of_seeds_vary_as_the_mean_of_seeds_does():
    """Where only seeds differ, the interval is their mean's, by its standard error."""
    n_seeds = 12
    values = np.random.default_rng(3).normal(size=n_seeds)
    draws = Draws(alone(50), n_seeds, 0, n_draws=4000)
    found = draws.intervals(np.ones((50, 1)), {"it": lambda sums: np.tile(values, (len(sums), 1))})
    wanted = 1.96 * values.std(ddof=1) / n_seeds**0.5
    assert (found["it"].high - found["it"].low) / 2 == pytest.approx(wanted, rel=0.1)


def test_where_all_is_right_each_group_counts_once():
    groups = [str(i % 20) for i in range(100)]
    found = score_intervals(judged(np.ones((2, 100))), Draws(groups, 2, 0))["accuracy"]
    which = np.arange(100) % 20
    assert found == pytest.approx(clustered_share_interval(np.ones(100, dtype=bool), which))
    assert found.low < 0.9


def test_few_groups_have_no_interval():
    groups = [str(i % 9) for i in range(90)]
    right = np.random.default_rng(0).random((2, 90)) < 0.5
    draws = Draws(groups, 2, 0)
    assert np.isnan(score_intervals(judged(right), draws)["accuracy"].low)
    found = compare_accuracy(judged(right), judged(~right), draws, 0)
    assert np.isnan(found.difference.low)
    assert outcome_of(found.difference, 0.0) == "did not beat"


def test_swapping_two_classifiers_turns_the_difference_around():
    luck = np.random.default_rng(4)
    one, two = (judged(luck.random((2, 100)) < chance) for chance in (0.9, 0.7))
    draws = Draws(alone(100), 2, 0)
    ahead, behind = compare_accuracy(one, two, draws, 0), compare_accuracy(two, one, draws, 0)
    assert ahead.difference.value == pytest.approx(one.right.mean() - two.right.mean())
    value, low, high = behind.difference
    assert (-value, -high, -low) == pytest.approx(ahead.difference)
    assert (ahead.n_gained, ahead.n_lost) == (behind.n_lost, behind.n_gained)
    assert ahead.p == behind.p < 0.05


def test_the_same_answers_differ_by_nothing_but_not_surely():
    one = judged(np.random.default_rng(5).random((2, 60)) < 0.8)
    found = compare_accuracy(one, one, Draws(alone(60), 2, 0), 0)
    assert (found.difference.value, found.p) == (0.0, 1.0)
    assert found.difference.low < 0 < found.difference.high


def test_other_examples_are_no_comparison():
    with pytest.raises(ConfigError, match="same examples"):
        compare_accuracy(judged([1, 0]), judged([1, 0, 1]), Draws(alone(2), 1, 0), 0)


def test_pairing_sees_what_two_intervals_do_not():
    right = np.random.default_rng(6).random((2, 300)) < 0.8
    better = right | (np.arange(300) % 25 == 0)
    one, two = judged(better), judged(right)
    draws = Draws(alone(300), 2, 0)
    ends = [score_intervals(each, draws)["accuracy"] for each in (one, two)]
    assert ends[0].low < ends[1].high
    assert compare_accuracy(one, two, draws, 0).difference.low > 0


@pytest.mark.parametrize(
    ("low", "high", "q", "wanted"),
    [
        (0.01, 0.03, 0.01, "beat"),
        (-0.03, -0.01, 0.01, "was worse than"),
        (-0.01, 0.03, 0.01, "did not beat"),
        (0.01, 0.03, 0.05, "did not beat"),
        (0.01, 0.03, np.nan, "did not beat"),
        (np.nan, np.nan, 0.01, "did not beat"),
    ],
)
def test_better_takes_an_interval_and_a_q(low, high, q, wanted):
    assert outcome_of(Interval(0.02, low, high), q) == wanted


def test_arms_that_do_not_differ_rarely_beat_each_other():
    """Examples, groups and seeds all have their own luck; 95 % intervals miss about 5 %."""
    luck, n_missed, n_tries = np.random.default_rng(7), 0, 150
    groups = [str(i % 40) for i in range(160)]
    which, draws = np.arange(160) % 40, Draws(groups, 4, 0, n_draws=300)
    for _ in range(n_tries):
        ease = luck.normal(size=40)[which]
        arms = [
            judged(ease + luck.normal(0, 0.3, (4, 1)) + luck.normal(size=(4, 160)) > -1)
            for _ in range(2)
        ]
        _, low, high = compare_accuracy(*arms, draws, 0).difference
        n_missed += not low <= 0 <= high
    assert n_missed <= 0.12 * n_tries
