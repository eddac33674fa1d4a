"""Losses are the numbers that a pencil gives, add up over parts, and train what they should."""

import math

import pytest
import torch
from tiny_reasoners import DECODER, some_answers, some_texts, tiny_network
from torch.nn import functional

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.network.losses import (
    IGNORED,
    answer_loss,
    deep_supervision,
    expected_steps,
    halting_loss,
    halting_probabilities,
    is_right,
    ponder_divergence,
    step_cost,
    unevenness,
)

LOGITS = torch.randn(3, 4, 7, generator=torch_stream(0, "logits"), dtype=torch.float64)
TARGETS = torch.tensor([[1, 6, 0, IGNORED], [2, IGNORED, IGNORED, IGNORED], [3, 3, 5, 4]])
HALTS = torch.randn(5, 8, generator=torch_stream(0, "halts"), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_answers_is_the_mean_over_targets_that_count(smoothing):
    total, n = 0.0, 0
    for row, place in (TARGETS != IGNORED).nonzero().tolist():
        logs = LOGITS[row, place].log_softmax(dim=-1)
        wanted = torch.full((7,), smoothing / 7, dtype=torch.float64)
        wanted[TARGETS[row, place]] += 1 - smoothing
        total, n = total - float(wanted @ logs), n + 1
    assert n == 8
    assert float(answer_loss(LOGITS, TARGETS, smoothing)) == pytest.approx(total / n)


def test_losses_of_the_parts_of_a_batch_add_up_to_that_of_the_whole():
    parts = [answer_loss(LOGITS[i], TARGETS[i], n_targets=8) for i in (slice(0, 1), slice(1, 3))]
    torch.testing.assert_close(sum(parts), answer_loss(LOGITS, TARGETS))
    means = [answer_loss(LOGITS[i], TARGETS[i]) for i in (slice(0, 1), slice(1, 3))]
    assert float(sum(means) / 2) != pytest.approx(float(sum(parts)), rel=1e-3)


def test_a_batch_without_targets_costs_nothing():
    assert float(answer_loss(LOGITS, torch.full_like(TARGETS, IGNORED))) == 0


def test_half_precision_logits_are_judged_in_float32():
    loss = answer_loss(LOGITS.bfloat16(), TARGETS)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(answer_loss(LOGITS, TARGETS)), rel=0.02)


def test_deep_supervision_weighs_later_steps_more():
    network, (ids, mask), target_in = tiny_network(output=DECODER), some_texts(), some_answers()
    targets = target_in.roll(-1, dims=1)
    thought = network.think(ids, mask)
    with torch.no_grad():
        at = {
            k: float(answer_loss(network.logits(thought, target_in, k), targets)) for k in (1, 2, 4)
        }
    found = deep_supervision(network, thought, target_in, targets, after=[1, 2, 4])
    assert float(found.detach()) == pytest.approx((at[1] + 2 * at[2] + 3 * at[4]) / 6, rel=1e-6)
    last = deep_supervision(network, thought, target_in, targets, after=[4])
    assert float(last.detach()) == pytest.approx(at[4], rel=1e-6)
    found.backward()
    assert all(each.weight.grad.abs().sum() > 0 for each in network.step.norms)
    for bad in ([], [2, 1], [1, 1]):
        with pytest.raises(ConfigError, match="each once and rising"):
            deep_supervision(network, thought, target_in, targets, after=bad)


def test_the_plans_cost_of_steps_is_its_formula_and_has_no_gradient():
    cost = step_cost(torch.tensor([4, 6, 1]))
    assert float(cost) == pytest.approx(0.001 * (0 + 4 + 9) / 3)
    assert not cost.requires_grad
    assert float(step_cost(torch.tensor([2]), target=5, weight=2.0)) == 18


def test_chances_to_stop_are_those_of_a_walk_down_the_steps():
    found, h = halting_probabilities(HALTS), HALTS.sigmoid()
    for row in range(8):
        left = 1.0
        for t in range(5):
            stops = left * float(h[t, row]) if t < 4 else left
            assert float(found[t, row]) == pytest.approx(stops)
            left -= stops
    torch.testing.assert_close(found.sum(dim=0), torch.ones(8, dtype=torch.float64))
    steps = torch.arange(1, 6, dtype=torch.float64)
    torch.testing.assert_close(expected_steps(HALTS), steps @ found)


def test_the_expected_number_of_steps_falls_where_stopping_gets_likelier():
    logits = HALTS.clone().requires_grad_()
    expected_steps(logits).sum().backward()
    assert (logits.grad[:-1] < 0).all()
    # The last step is done by whoever comes there.
    assert not logits.grad[-1].any()
    assert float(expected_steps(torch.full((6, 1), -50.0))) == pytest.approx(6)
    assert float(expected_steps(torch.full((6, 1), 50.0))) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_costs_of_thinking_have_finite_gradients_however_sure_a_head_is(scale):
    logits = (scale * HALTS.float()).requires_grad_()
    (expected_steps(logits).mean() + ponder_divergence(logits, 0.2)).backward()
    assert logits.grad.isfinite().all()


def test_the_divergence_from_a_geometric_law_is_zero_there_and_nowhere_else():
    rate = 0.3
    there = torch.full((6, 2), rate, dtype=torch.float64).logit()
    assert float(ponder_divergence(there, rate)) == pytest.approx(0, abs=1e-12)
    p = halting_probabilities(HALTS)
    law = torch.tensor([rate * (1 - rate) ** t for t in range(4)], dtype=torch.float64)
    law = torch.cat([law, 1 - law.sum()[None]])[:, None]
    by_hand = (p * (p / law).log()).sum(dim=0).mean()
    torch.testing.assert_close(ponder_divergence(HALTS, rate), by_hand)
    assert float(by_hand) > 0.1
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1"):
        ponder_divergence(HALTS, 1.0)


def test_an_answer_is_right_where_all_its_tokens_are():
    logits = functional.one_hot(torch.tensor([[1, 2], [1, 3], [0, 2]]), 4).float()
    targets = torch.tensor([[1, 2], [1, 2], [IGNORED, 2]])
    assert is_right(logits, targets).tolist() == [True, False, True]


def test_a_halting_head_is_trained_to_say_whether_the_answer_is_right():
    logits = torch.tensor([[0.0, 2.0]], requires_grad=True)
    loss = halting_loss(logits, torch.tensor([[True, False]]))
    assert float(loss.detach()) == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    loss.backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_unevenness_is_nothing_for_slots_alike_and_one_for_a_single_slot():
    alike = torch.full((2, 3, 4), 0.25)
    assert float(unevenness(alike)) == pytest.approx(0, abs=1e-6)
    apart = torch.eye(4)[None].expand(2, 4, 4)
    assert float(unevenness(apart)) == pytest.approx(0, abs=1e-6)
    one = torch.zeros(2, 3, 4)
    one[..., 1] = 1
    one.requires_grad_()
    loss = unevenness(one)
    assert float(loss.detach()) == pytest.approx(1)
    loss.backward()
    assert one.grad.isfinite().all()
    assert float(unevenness(torch.ones(2, 3, 1))) == 0


def test_unevenness_does_not_ask_how_long_texts_are():
    routing = torch.randn(2, 5, 4, generator=torch_stream(0, "routing")).softmax(dim=-1)
    longer = torch.cat([routing, torch.zeros(2, 5, 4)], dim=1)
    longer[1, 5:] = routing[1]
    torch.testing.assert_close(unevenness(longer), unevenness(routing))
