"""What ways to act are worth, by hand; and training loops that are put down and taken up."""

import numpy as np
import pytest
import torch

from fluoroscope.studies.policy.bandit import RewardTable
from fluoroscope.studies.policy.enumeration import ScoreTable
from fluoroscope.studies.policy.judging import (
    ACTIVE,
    NEVER,
    ORACLE,
    STATIC,
    UNIFORM,
    Judge,
    best_multiple,
    mean_outcome,
    outcome_row,
)


def judge_of(scores, activations=None, price=0.1, towards=None):
    """Two candidates at two multiples, or as many actions as there are scores."""
    rewards = torch.tensor(scores, dtype=torch.float64)
    n = len(rewards)
    table = RewardTable(
        rewards,
        torch.zeros(n, 2),
        torch.ones_like(rewards, dtype=torch.bool),
        torch.zeros_like(rewards),
        torch.zeros(n, dtype=torch.float64),
    )
    seen = torch.zeros(n, 2) if activations is None else torch.tensor(activations)
    said = (rewards > 0.5).long()
    return Judge.of(ScoreTable(table, said, seen), towards, price, 0.0)


SCORES = [[0.2, 0.9, 0.4, 0.3, 0.2], [0.8, 0.1, 0.85, 0.8, 0.8]]
SEEN = [[1.0, 2.0], [0.0, 0.0]]


def test_each_way_gets_what_its_actions_get_less_their_price():
    judge = judge_of(SCORES, SEEN)
    ways = judge.ways(static=2, multiple=1, n_multiples=2)
    returns = {name: judge.outcome(shares).returned.tolist() for name, shares in ways.items()}
    assert returns[NEVER] == [0.2, 0.8]
    assert returns[STATIC] == pytest.approx([0.3, 0.75])
    # The gain of 0.05 is less than the price.
    assert returns[ORACLE] == pytest.approx([0.8, 0.8])
    # Of the second candidate the second multiple; nothing where nothing is active.
    assert returns[ACTIVE] == pytest.approx([0.1, 0.8])
    assert returns[UNIFORM] == pytest.approx([0.4 - 0.08, 0.67 - 0.08])
    assert best_multiple(judge, 2) == 0


def test_worth_is_of_the_score_that_is_aimed_at():
    judge = judge_of([[0.0, 0.5, 1.0]], price=0.0, towards=0.5)
    uniform = torch.full((1, 3), 1 / 3)
    assert judge.outcome(uniform).worth.tolist() == pytest.approx([1 / 3])
    assert judge.outcome(uniform).score.tolist() == pytest.approx([0.5])


def test_a_row_tells_gain_share_of_the_optimum_and_distance_over_groups():
    judge = judge_of(SCORES * 6, SEEN * 6)
    ways = judge.ways(static=1, multiple=0, n_multiples=2)
    outcomes = {name: judge.outcome(shares) for name, shares in ways.items()}
    groups = [str(i // 2) for i in range(12)]
    there = np.ones(12, bool)
    args = (outcomes[NEVER], outcomes[ORACLE], outcomes[ORACLE], groups, there, 0)
    row = outcome_row(outcomes[STATIC], *args)
    assert row["gain"] == pytest.approx((0.6 - 0.8) / 2)
    assert row["of_optimum"] == pytest.approx(-0.2 / 0.6)
    assert row["behind"] == pytest.approx(0.8 - 0.4)
    assert row["paid"] == pytest.approx(0.1)
    assert (row["n"], row["n_groups"]) == (12, 6)
    # Six groups are too few to tell how others differ.
    assert row["gain_low"] is None
    only = np.array([True, False] * 6)
    assert outcome_row(outcomes[STATIC], *args[:4], only, 0)["gain"] == pytest.approx(0.6)


def test_side_effects_count_replies_that_change_for_the_worse():
    judge = judge_of(SCORES * 6, price=0.0)
    effects = judge.side_effect(
        judge.sure(torch.ones(12, dtype=torch.int64)), list("abcdefghijkl"), 0
    )
    assert (effects["n_changed"], effects["n_worse"], effects["n_better"]) == (12, 6, 6)
    assert effects["side_effect"] == 0.5


def test_trainings_are_averaged_sample_by_sample():
    judge = judge_of(SCORES)
    ways = judge.ways(1, 0, 2)
    mean = mean_outcome([judge.outcome(ways[NEVER]), judge.outcome(ways[STATIC])])
    assert mean.score.tolist() == pytest.approx([0.55, 0.45])
    assert mean.acting.tolist() == [0.5, 0.5]
