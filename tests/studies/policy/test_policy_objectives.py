"""Objectives against numbers by hand, naive loops, and the gradient of what they estimate."""

import itertools
import math

import numpy as np
import pytest
import torch

from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.policy.objectives import (
    clipped_share,
    clipped_surrogate,
    expected_reward,
    falling,
    generalised_advantages,
    group_baseline,
    group_normalised,
    kl_per_token,
    mean_over_texts,
    priced_normalised,
    sum_over_texts,
    text_returns,
    token_rewards,
)

RETURNS = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 3.0, 5.0], dtype=torch.float64)
GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 2])


def test_the_leave_one_out_baseline_is_the_mean_of_the_others():
    found = group_baseline(RETURNS, GROUP)
    assert found.tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3, 0, 0, 0])


def test_normalised_returns_have_mean_0_and_deviation_1_and_equal_ones_say_nothing():
    found = group_normalised(RETURNS, GROUP)
    assert found.tolist() == pytest.approx([1, -1, -1, 1, 0, 0, 0])
    equal = torch.full((5,), 0.1 + 0.2, dtype=torch.float64)
    assert group_normalised(equal, torch.zeros(5, dtype=torch.int64)).tolist() == [0] * 5
    ten = torch.randn(10, generator=torch_stream(0, "ten")).double()
    scaled = group_normalised(1e-6 * ten, torch.zeros(10, dtype=torch.int64))
    expected = (ten - ten.mean()) / ten.std(correction=0)
    torch.testing.assert_close(scaled, expected, atol=1e-9, rtol=0)


def test_the_clipped_surrogate_by_hand():
    """Ratios 1.5 and 0.5, good and bad, at a clip of 0.2."""
    new = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]).double().log()
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0]).double()
    found = clipped_surrogate(new, torch.zeros(5).double(), advantages, 0.2)
    assert found.tolist() == pytest.approx([2.4, -3.0, 1.0, -1.6, 3.3])
    assert clipped_share(new, torch.zeros(5).double(), 0.2) == pytest.approx(0.8)


def test_a_step_beyond_the_clip_has_no_gradient_and_one_within_that_of_the_policy():
    new = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    clipped_surrogate(new, torch.zeros(3).double(), advantages, 0.2).sum().backward()
    assert new.grad is not None
    # At ratio 1 the gradient is advantage x gradient of the log-probability.
    assert new.grad.tolist() == [0.0, 2.0, 0.0]


def test_texts_count_alike_in_the_mean_and_by_their_length_in_the_sum():
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    text = torch.tensor([0, 0, 0, 1])
    assert float(mean_over_texts(values, text, 2)) == (2 + 10) / 2
    assert float(sum_over_texts(values, text, 2)) == (6 + 10) / 2
    assert mean_over_texts(values, text, 2).dtype == torch.float64


def test_the_grpo_objective_is_that_of_its_paper_written_as_loops():
    """Equation 3 of arXiv:2402.03300 without its KL term, and its gradient."""
    random = torch_stream(0, "grpo")
    lengths, clip = [3, 1, 4, 2], 0.2
    text = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)])
    old = torch.randn(10, generator=random).double()
    new = (old + 0.3 * torch.randn(10, generator=random).double()).requires_grad_()
    returns = torch.randn(4, generator=random).double()
    advantages = group_normalised(returns, torch.zeros(4, dtype=torch.int64))
    found = mean_over_texts(clipped_surrogate(new, old, advantages[text], clip), text, 4)
    (gradient,) = torch.autograd.grad(found, new)

    naive = torch.zeros((), dtype=torch.float64)
    mean, deviation = float(np.mean(returns.numpy())), float(np.std(returns.numpy()))
    for i, n in enumerate(lengths):
        start = sum(lengths[:i])
        for t in range(start, start + n):
            ratio = torch.exp(new[t] - old[t])
            advantage = (float(returns[i]) - mean) / deviation
            bounded = torch.clip(ratio, 1 - clip, 1 + clip)
            naive = naive + torch.min(ratio * advantage, bounded * advantage) / n / 4
    (expected,) = torch.autograd.grad(naive, new)
    assert float(found.detach()) == pytest.approx(float(naive.detach()), abs=1e-12)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


def test_both_kl_estimates_have_the_exact_kl_as_their_mean():
    random = torch_stream(1, "kl")
    p = torch.randn(7, generator=random).double().log_softmax(0)
    q = torch.randn(7, generator=random).double().log_softmax(0)
    exact = float((p.exp() * (p - q)).sum())
    for kind in ("k1", "k3"):
        values = kl_per_token(p, q, kind)
        assert float((p.exp() * values).sum()) == pytest.approx(exact, abs=1e-12)
    assert kl_per_token(p, q, "k3").min() >= 0 > kl_per_token(p, q, "k1").min()
    by_hand = kl_per_token(torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)]), "k3")
    assert float(by_hand) == pytest.approx(0.5 + math.log(2) - 1)


def test_an_outcome_is_paid_at_the_last_token_and_costs_where_they_arise():
    text = torch.tensor([0, 0, 1])
    costs = torch.tensor([0.1, 0.0, 0.2])
    rewards = token_rewards(torch.tensor([1.0, 5.0]), text, torch.tensor([0.0, 1.0, 1.0]), costs)
    assert rewards.tolist() == pytest.approx([-0.1, 1.0, 4.8])
    assert text_returns(rewards, text, 2).tolist() == pytest.approx([0.9, 4.8])


def test_generalised_advantages_by_hand_and_as_the_naive_double_sum():
    rewards = torch.tensor([1.0, 0.0, 2.0, 5.0]).double()
    values = torch.tensor([0.5, 1.0, -1.0, 3.0]).double()
    text, place = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 0])
    plain = generalised_advantages(rewards, values, text, place)
    # Lambda 1: what is still to come, less the value.
    assert plain.tolist() == pytest.approx([2.5, 1.0, 3.0, 2.0])
    one_step = generalised_advantages(rewards, values, text, place, trace=0.0)
    assert one_step.tolist() == pytest.approx([1.5, -2.0, 3.0, 2.0])
    g, lam = 0.9, 0.7
    found = generalised_advantages(rewards, values, text, place, discount=g, trace=lam)
    d = [1 + g * 1.0 - 0.5, 0 + g * -1.0 - 1.0, 2 + 1.0]
    assert float(found[0]) == pytest.approx(d[0] + g * lam * d[1] + (g * lam) ** 2 * d[2])
    assert float(found[3]) == pytest.approx(2.0)


def test_the_exact_gradient_is_that_of_the_policy_gradient_theorem():
    """sum_a pi(a) (R(a) - J) grad log pi(a), by hand, against autograd of the expectation."""
    random = torch_stream(2, "bandit")
    logits = torch.randn(6, 5, generator=random).double().requires_grad_()
    rewards = torch.randn(6, 5, generator=random).double()
    (found,) = torch.autograd.grad(expected_reward(logits.log_softmax(-1), rewards), logits)
    shares = logits.detach().softmax(-1)
    expected = shares * (rewards - (shares * rewards).sum(-1, keepdim=True)) / 6
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("group_size", [2, 3])
def test_the_sampled_estimators_expectation_is_the_exact_gradient(group_size):
    """REINFORCE with the leave-one-out baseline over every group that could be drawn, each
    weighted by its probability.
    """
    random = torch_stream(3, "enumeration")
    n_actions = 4
    logits = torch.randn(1, n_actions, generator=random).double().requires_grad_()
    rewards = torch.randn(1, n_actions, generator=random).double()
    (exact,) = torch.autograd.grad(expected_reward(logits.log_softmax(-1), rewards), logits)
    shares = logits.detach().softmax(-1)[0]
    text, group = torch.arange(group_size), torch.zeros(group_size, dtype=torch.int64)
    total = torch.zeros_like(exact)
    for drawn in itertools.product(range(n_actions), repeat=group_size):
        actions = torch.tensor(drawn)
        now = logits.log_softmax(-1)[0, actions]
        advantages = group_baseline(rewards[0, actions], group)
        estimate = sum_over_texts(advantages * now, text, group_size)
        (gradient,) = torch.autograd.grad(estimate, logits)
        total += shares[actions].prod() * gradient
    torch.testing.assert_close(total, exact, atol=1e-12, rtol=0)


def test_a_falling_weight_ends_at_nothing():
    assert [falling(0.6, i, 4) for i in range(4)] == pytest.approx([0.6, 0.4, 0.2, 0.0])
    assert falling(0.6, 0, 1) == 0.6


def test_costs_count_in_units_of_outcomes_also_where_these_are_all_alike():
    outcomes = torch.tensor([0.0, 1.0, 1.0, 1.0])
    group = torch.tensor([0, 0, 1, 1])
    costs = torch.tensor([0.0, 0.0, 0.02, 0.0])
    found = priced_normalised(outcomes - costs, outcomes, group)
    # The first group's outcomes have a standard deviation of 1/2, in which a cost is 0.04.
    assert found.tolist() == pytest.approx([-1.0, 1.0, -0.02, 0.02])
    plain = priced_normalised(outcomes, outcomes, group)
    assert plain.tolist() == pytest.approx(group_normalised(outcomes, group).tolist())
    alone = priced_normalised(1 - costs[2:], torch.ones(2), torch.zeros(2, dtype=torch.int64))
    assert alone.tolist() == pytest.approx([-0.01, 0.01])
