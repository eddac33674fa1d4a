"""A head draws from the distribution whose logarithm it gives, and costs next to nothing."""

import math

import pytest
import torch

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.sampling import row_luck
from fluoroscope.models.shape import ModelShape
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.policy.heads import (
    PolicyHead,
    ValueHead,
    action_luck,
    added_flops_share,
    draw,
    entropy,
    head_flops,
    masked,
)


@pytest.fixture
def states():
    return 5 + 3 * torch.randn(300, 12, generator=torch_stream(0, "states"))


@pytest.fixture
def head(states):
    made = PolicyHead(12, 3, 6, no_op_share=0.4, seed=2)
    made.calibrate(states)
    with torch.no_grad():
        made.up.copy_(torch.randn(made.up.shape, generator=torch_stream(1, "up")))
    return made


def test_a_new_head_does_nothing_as_often_as_was_asked_and_all_else_alike(states):
    shares = PolicyHead(12, 3, 6, no_op_share=0.4)(states).softmax(dim=-1)
    expected = torch.tensor([0.4, *[0.12] * 5]).expand_as(shares)
    torch.testing.assert_close(shares, expected)


def test_the_folded_head_is_the_head(head, states):
    folded = head.folded(torch.device("cpu"), torch.float64).logits(states.double())
    torch.testing.assert_close(folded, head.double()(states.double()), atol=1e-12, rtol=0)


def test_calibration_gives_states_unit_variance_whatever_their_scale(head, states):
    scaled = (states - head.centre) * head.scale
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scaled.square().mean()) == pytest.approx(1, abs=1e-5)
    other = PolicyHead(12, 3, 6, seed=2)
    other.calibrate(1000 * states - 7)
    other.up = head.up
    torch.testing.assert_close(
        other(1000 * states - 7) - other.bias, head(states) - head.bias, atol=1e-3, rtol=1e-3
    )
    with pytest.raises(NumericsError, match="spread of 0"):
        head.calibrate(torch.ones(4, 12))


def test_actions_are_drawn_exactly_as_often_as_their_log_probability_says():
    """The share of evenly spaced luck that draws an action is its probability."""
    logits = torch.tensor([[0.3, -torch.inf, 2.0, -1.0, -torch.inf]]).double()
    n = 200_000
    luck = (torch.arange(n).double() + 0.5) / n
    actions = draw(logits.expand(n, 5), luck)
    shares = torch.bincount(actions, minlength=5).double() / n
    torch.testing.assert_close(shares, logits.log_softmax(dim=-1).exp()[0], atol=1 / n, rtol=0)


def test_an_action_that_is_not_allowed_is_never_drawn_even_by_extreme_luck():
    logits = masked(torch.zeros(2, 4), torch.tensor([[True, False, True, False]]).expand(2, 4))
    assert draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [0, 2]
    only = masked(torch.zeros(1, 4), torch.tensor([[True, False, False, False]]))
    assert draw(only, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [0]


def test_entropy_and_its_gradient_are_finite_under_a_mask():
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    allowed = torch.tensor([[True, False, True]])
    found = entropy(masked(logits, allowed).log_softmax(dim=-1))
    p = 1 / (1 + math.exp(2))
    assert float(found.detach()) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0
    alone = entropy(masked(logits, torch.tensor([[True, False, False]])).log_softmax(dim=-1))
    assert float(alone.detach()) == 0


def test_the_luck_of_actions_is_the_rows_own_and_not_that_of_its_tokens():
    assert torch.equal(action_luck(3, 5), action_luck(3, 9)[:5])
    assert not torch.equal(action_luck(3, 5), action_luck(4, 5))
    assert not torch.equal(action_luck(3, 5), torch.from_numpy(row_luck(3, 5)))


def test_flops_are_counted_by_hand():
    assert head_flops(10, 2, 5) == 2 * (10 * 2 + 2 * 5 + 10)
    assert head_flops(10, 2, 5, n_masked=4) == 2 * (10 * 2 + 2 * 5 + 10 + 40)


def test_the_share_of_a_block_counts_the_blocks_own_weights():
    network = tiny_model("llama").network
    shape = ModelShape.from_network(network)
    block = sum(p.numel() for p in network.model.layers[0].parameters() if p.ndim == 2)
    assert added_flops_share(shape, 2, 4) == pytest.approx(head_flops(16, 2, 5) / (2 * block))


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gemma-2-2b", "llama-3.1-8b"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_a_policy_over_64_latents_costs_at_most_a_hundredth_of_a_block(name, is_masked):
    share = added_flops_share(ModelShape.of(name), 16, 64, is_masked=is_masked)
    assert share <= 0.01


def test_a_value_head_starts_at_nothing_and_wrong_sizes_name_themselves(states):
    assert ValueHead(12, 3)(states).tolist() == [0.0] * 300
    with pytest.raises(ConfigError, match="rank of a head is 1 to 12"):
        PolicyHead(12, 13, 6)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        PolicyHead(12, 3, 6, no_op_share=1.0)
