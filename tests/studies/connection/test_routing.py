"""Tokens share themselves out over slots, and slots take means of what they are given."""

import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.network.network_config import RoutingConfig
from fluoroscope.studies.connection.network.routing import SlotRouting, orthonormal_slots

D, N, S = 6, 4, 7
CLOSE = {"atol": 1e-12, "rtol": 1e-10}
X = torch.randn(3, S, D, generator=torch_stream(0, "tokens"), dtype=torch.float64)
MASK = torch.arange(S) < torch.tensor([7, 1, 4])[:, None]


def routing_of(seed=0, n_slots=N, **config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SlotRouting(D, n_slots, RoutingConfig(**config)).double()


def by_hand(routing, states, x, n_heads=1):
    """What slots take of one text without padding, token by token, slot by slot, head by head."""
    matrices = (routing.query.weight, routing.key.weight, routing.value.weight)
    Wq, Wk, Wv = (matrix.detach().T for matrix in matrices)
    e = D // n_heads
    taken, shares = torch.zeros_like(states), torch.zeros(len(x), len(states), dtype=x.dtype)
    for head in range(n_heads):
        part = slice(head * e, (head + 1) * e)
        A = torch.stack(
            [
                torch.stack(
                    [(token @ Wq)[part] @ (slot @ Wk)[part] / e**0.5 for slot in states]
                ).softmax(dim=0)
                for token in x
            ]
        )
        for j in range(len(states)):
            total = sum(A[s, j] * (x[s] @ Wv)[part] for s in range(len(x)))
            taken[j, part] = total / (A[:, j].sum() + 1e-8)
        shares += A / n_heads
    return taken, shares


@pytest.mark.parametrize("n_slots", [N, 2 * D + 1])
@pytest.mark.parametrize("n_heads", [1, 2])
@torch.no_grad()
def test_slots_take_the_weighted_mean_of_tokens(n_slots, n_heads):
    routing = routing_of(n_slots=n_slots, n_heads=n_heads)
    routed = routing.first(routing.reading(X, MASK))
    for row, n in enumerate(MASK.sum(dim=1).tolist()):
        taken, shares = by_hand(routing, routing.slots, X[row, :n], n_heads)
        torch.testing.assert_close(routed.states[row], routing.slots + taken, **CLOSE)
        torch.testing.assert_close(routed.routing[row, :n], shares, **CLOSE)
        assert not routed.routing[row, n:].any()


@pytest.mark.parametrize("n_heads", [1, 3])
@torch.no_grad()
def test_slots_that_read_again_ask_by_what_they_know(n_heads):
    routing = routing_of(every_step=True, n_heads=n_heads)
    states = torch.randn(3, N, D, generator=torch_stream(1, "states"), dtype=torch.float64)
    routed = routing.again(states, routing.reading(X, MASK))
    for row, n in enumerate(MASK.sum(dim=1).tolist()):
        normed = routing.norm(states[row])
        taken, shares = by_hand(routing, normed, X[row, :n], n_heads)
        kept = torch.stack([routing.gate(taken[j], states[row, j]) for j in range(N)])
        torch.testing.assert_close(routed.states[row], kept, **CLOSE)
        torch.testing.assert_close(routed.routing[row, :n], shares, **CLOSE)


@torch.no_grad()
def test_reading_once_is_the_same_whether_slots_read_again_or_not():
    once, often = routing_of(), routing_of(every_step=True)
    often.load_state_dict(once.state_dict(), strict=False)
    found = [each.first(each.reading(X, MASK)).states for each in (once, often)]
    torch.testing.assert_close(*found, **CLOSE)


def test_each_token_gives_itself_once_and_padding_gives_nothing():
    routing = routing_of(n_heads=2)
    given = routing.first(routing.reading(X, MASK)).routing.sum(dim=-1)
    torch.testing.assert_close(given, MASK.double(), **CLOSE)


def test_a_text_said_twice_is_read_as_if_said_once():
    routing = routing_of()
    states = routing.first(routing.reading(X, MASK)).states
    twice = routing.first(routing.reading(X.repeat(1, 2, 1), MASK.repeat(1, 2))).states
    # Up to the 1e-8 that keeps a slot that is given nothing from dividing by 0.
    torch.testing.assert_close(twice, states, atol=1e-6, rtol=1e-6)


def test_slots_that_are_given_nothing_stay_as_they_are():
    routing = routing_of()
    nothing = torch.zeros_like(MASK)
    states = routing.first(routing.reading(X, nothing)).states
    assert torch.equal(states, routing.slots.expand_as(states))


@pytest.mark.parametrize(("n_slots", "sizes"), [(3, [3]), (5, [5]), (13, [5, 5, 3])])
def test_slots_are_orthonormal_in_groups_of_the_width(n_slots, sizes):
    slots = orthonormal_slots(n_slots, 5)
    groups = slots.split(sizes)
    for group in groups:
        torch.testing.assert_close(group @ group.T, torch.eye(len(group)), atol=1e-5, rtol=0)
    assert len({tuple(row) for row in slots.tolist()}) == n_slots


def test_slots_are_fixed_unless_they_learn():
    fixed, learned = routing_of(), routing_of(learns_slots=True)
    assert {name for name, _ in fixed.named_parameters()} == {
        "query.weight",
        "key.weight",
        "value.weight",
    }
    assert "slots" in fixed.state_dict()
    assert "slots" in dict(learned.named_parameters())
    learned.first(learned.reading(X, MASK)).states.square().sum().backward()
    assert learned.slots.grad.abs().min() > 0


def test_heads_must_share_the_width_evenly():
    with pytest.raises(ConfigError, match=r"multiple of routing.n_heads, got 6 and 4"):
        routing_of(n_heads=4)
