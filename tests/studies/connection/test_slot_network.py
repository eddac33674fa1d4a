"""The network is the plan's formulas, in both of its generations, and learns."""

from functools import partial
from typing import get_args

import pytest
import torch
from tiny_reasoners import (
    DECODER,
    SIZES,
    some_answers,
    some_texts,
    tiny_baseline,
    tiny_config,
    tiny_network,
)
from torch.nn import functional

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.baselines.baseline_config import LoopedConfig
from fluoroscope.studies.connection.network.decoding import answer
from fluoroscope.studies.connection.network.halting import HALTING
from fluoroscope.studies.connection.network.losses import answer_loss, is_right
from fluoroscope.studies.connection.network.network_config import (
    HaltingName,
    NetworkConfig,
    OutputName,
    StepName,
)
from fluoroscope.studies.connection.network.outputs import OUTPUTS
from fluoroscope.studies.connection.network.slot_network import (
    SlotNetwork,
    new_network,
    warm_start,
)
from fluoroscope.studies.connection.network.steps import STEPS
from fluoroscope.studies.connection.network.steps.base import Moved

CLOSE = {"atol": 1e-10, "rtol": 1e-9}
SCALAR = {"name": "scalar", "rank": 1}
FORMS = [{}, {"output": DECODER, "connection": SCALAR}, {"step": "gated", "output": DECODER}]


def loss_of(network, n_steps=None):
    (ids, mask), target_in = some_texts(), some_answers()
    thought = network.think(ids, mask, n_steps)
    return answer_loss(network.logits(thought, target_in), target_in.roll(-1, dims=1))


def no_loop(network, ids):
    """The plan's states after one step, of texts without padding, line by line."""
    X = network.embedding.tokens.weight[ids] + network.embedding.places.weight[: ids.shape[1]]
    H0, routing = network.routing.slots, network.routing
    q, k, v = X @ routing.query.weight.T, H0 @ routing.key.weight.T, X @ routing.value.weight.T
    A = (q @ k.T / H0.shape[1] ** 0.5).softmax(dim=-1)
    A = A / (A.sum(dim=1, keepdim=True) + 1e-8)
    S = H0 + A.transpose(1, 2) @ v
    U = network.connection.operator()(S).relu()
    norm = network.step.norms[0]
    return functional.layer_norm(S + U, S.shape[-1:], norm.weight, norm.bias)


@pytest.mark.parametrize("form", FORMS[:2])
@torch.no_grad()
def test_one_step_is_the_plans_formulas_without_a_loop(form):
    network = tiny_network(max_steps=1, **form).double()
    ids = some_texts()[0]
    thought = network.think(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(thought.states[-1], no_loop(network, ids), **CLOSE)
    assert thought.n_steps.tolist() == [1] * len(ids)


@torch.no_grad()
def test_the_plans_output_looks_from_every_place_at_the_slots_and_goes_on_behind_the_text():
    network = tiny_network().double()
    (ids, mask), target_in = some_texts(), some_answers()
    thought = network.think(ids, mask)
    E, P = network.embedding.tokens.weight, network.embedding.places.weight
    output = network.output
    Wq, Wk, Wv = (each.weight.T for each in (output.query, output.key, output.value))

    def said(row, token, place):
        S = thought.states[-1][row]
        scores = (E[token] + P[place]) @ Wq @ (S @ Wk).T / SIZES["d_model"] ** 0.5
        return scores.softmax(dim=-1) @ (S @ Wv) @ output.head.weight.T

    logits, at_text = network.logits(thought, target_in), network.say(thought)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        for t, token in enumerate(target_in[row]):
            torch.testing.assert_close(logits[row, t], said(row, token, length + t), **CLOSE)
        for s in range(length):
            torch.testing.assert_close(at_text[row, s], said(row, ids[row, s], s), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("recalls", [True, False])
def test_a_gated_step_is_its_formula(recalls):
    network = tiny_network(step="gated", recalls=recalls).double()
    ids, mask = some_texts()
    before, after = network.think(ids, mask, 2).states[1:]
    first, step = network.think(ids, mask, 0).states[0], network.step

    def norm(x):
        return x / (x.square().mean(dim=-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()

    heard = network.connection.operator()(norm(before))
    gate = step.gate(torch.cat([norm(before), heard], dim=-1)).sigmoid()
    mixed = before + gate * heard
    expected = norm(mixed + step.hidden(norm(mixed)) + recalls * norm(first))
    torch.testing.assert_close(after, expected, **CLOSE)


@torch.no_grad()
def test_a_token_hears_its_neighbours_and_no_padding():
    network = tiny_network(neighbours=1, output=DECODER).double()
    ids, mask = some_texts()
    x, conv = network.embedding(ids), network.neighbours.conv
    for row, at in ((0, 0), (1, 1), (2, int(mask[2].sum()) - 1)):
        near = [at + step for step in (-1, 0, 1) if 0 <= at + step < int(mask[row].sum())]
        heard = sum(conv.weight[:, :, each - at + 1] @ x[row, each] for each in near) + conv.bias
        found = network.neighbours(x, mask)[row, at]
        torch.testing.assert_close(found, x[row, at] + heard, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("make", [tiny_network, partial(tiny_baseline, LoopedConfig)])
def test_noise_is_of_the_size_asked_for_and_only_in_training(make):
    reasoner = make(noise=0.1, max_steps=1, dropout=0.0)
    ids, mask = some_texts()
    quiet = reasoner.think(ids, mask).states
    assert torch.equal(reasoner.think(ids, mask).states[1], quiet[1])
    torch.manual_seed(0)
    # Of the first alone: those after a step hear what was added to the first.
    loud = reasoner.train().think(ids, mask, 0).states[0]
    added = (loud - quiet[0])[mask] if loud.shape[1] == mask.shape[1] else loud - quiet[0]
    assert 0.07 < added.square().mean().sqrt() / quiet[0].square().mean().sqrt() < 0.13
    assert not torch.equal(reasoner.think(ids, mask).states[1], quiet[1])


class Still(torch.nn.Module):
    """A step whose states are always the same."""

    most = None

    def forward(self, states, first, hears, index):
        return Moved(torch.ones_like(states), torch.zeros_like(states))


@torch.no_grad()
def test_noise_is_no_change_of_a_text_that_is_at_rest():
    halting = {"name": "relative", "threshold": 0.01}
    network = tiny_network(step="gated", max_steps=5, noise=0.5, dropout=0.0, halting=halting)
    network.step = Still()
    ids, mask = some_texts()
    for asked in (network.eval(), network.train()):
        assert asked.think(ids, mask).n_steps.tolist() == [2] * len(ids)


@torch.no_grad()
def test_without_steps_an_answer_is_of_what_was_read():
    network = tiny_network(max_steps=0, output=DECODER)
    ids, mask = some_texts()
    thought = network.think(ids, mask)
    assert len(thought.states) == 1
    assert thought.changes.shape == (0, len(ids))
    read = network.routing.first(network.routing.reading(network.embedding(ids), mask))
    assert torch.equal(thought.states[0], read.states)


@pytest.mark.parametrize(("name", "pair"), [("bilinear", {"rank": 2}), ("scalar", {"rank": 2})])
def test_gradients_reach_all_that_learns_and_not_the_slots(name, pair):
    network = tiny_network(output=DECODER, connection={"name": name, **pair})
    loss_of(network).backward()
    for weight in ("connection.W_s", "connection.W_t", "routing.key.weight"):
        assert network.get_parameter(weight).grad.abs().sum() > 0
    without = [name for name, each in network.named_parameters() if each.grad is None]
    assert without == []
    assert "routing.slots" not in dict(network.named_parameters())
    assert "routing.slots" in dict(network.named_buffers())
    assert not network.routing.slots.requires_grad


def test_training_leaves_padding_at_zero():
    network = tiny_network(output=DECODER)
    optimiser = torch.optim.AdamW(network.parameters(), 0.1)
    loss_of(network).backward()
    optimiser.step()
    for embedding in (network.embedding, network.output.decoder.embedding):
        assert not embedding.tokens.weight[SIZES["pad_id"]].any()
        assert embedding.tokens.weight[3].abs().min() > 0


@pytest.mark.parametrize(
    ("steps", "count"), [(1, 133_784_064), (4, 133_784_064 + 3 * 1536)], ids=["K=1", "K=4"]
)
def test_the_second_generation_has_as_many_weights_as_was_published(steps, count):
    config = build(
        NetworkConfig,
        {
            "d_model": 768,
            "n_slots": 768,
            "max_steps": steps,
            "connection": SCALAR,
            "output": {"name": "decoder", "n_layers": 6},
            "max_source": 256,
            "max_target": 256,
        },
    )
    with torch.device("meta"):
        network = SlotNetwork(config)
    assert sum(weight.numel() for weight in network.parameters()) == count


@pytest.mark.parametrize(
    "form", [*FORMS, {"routing": {"every_step": True}, "step": "gated"}, {"noise": 0.5}]
)
def test_steps_done_twice_for_less_memory_have_the_same_gradients(form):
    gradients = []
    for is_checkpointed in (False, True):
        network = tiny_network(dropout=0.2, **form).train()
        network.checkpoints_steps = is_checkpointed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            loss = loss_of(network)
        loss.backward()
        gradients.append({name: each.grad for name, each in network.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_steps_done_twice_are_done_twice(monkeypatch):
    network, calls = tiny_network(max_steps=3), []
    network.checkpoints_steps = True
    forward = network.step.forward
    monkeypatch.setattr(network.step, "forward", lambda *a: calls.append(a[3]) or forward(*a))
    loss_of(network).backward()
    assert calls == [0, 1, 2, 2, 1, 0]


def test_a_step_that_has_no_norm_says_so_and_a_gated_one_can_be_done_as_often_as_one_likes():
    ids, mask = some_texts()
    with pytest.raises(ModelError, match=r"norm for each of its 4 steps, so 5 cannot.*step=gated"):
        tiny_network().think(ids, mask, 5)
    with pytest.raises(ModelError, match="5 cannot be done"):
        tiny_network().think(ids, mask, torch.tensor([1, 5, 1, 1, 1, 1]))
    with pytest.raises(ModelError, match="0 or more, got -1"):
        tiny_network().think(ids, mask, -1)
    network = tiny_network(step="gated", output=DECODER)
    with torch.no_grad():
        thought = network.think(ids, mask, 300)
    lengths = thought.states[-1].square().mean(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-3, rtol=0)
    assert thought.changes[-1].max() < thought.changes[1].min()
    with pytest.raises(ModelError, match=r"after 0 to 300 steps, not after 301"):
        network.logits(thought, some_answers(), 301)


def test_a_network_follows_its_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (new_network(tiny_config(), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["routing.slots"], other["routing.slots"])


def test_weights_begin_as_in_the_generation_of_the_plan_that_they_are_of():
    sizes = {"vocab_size": 300, "d_model": 64, "n_slots": 8}
    first = new_network(tiny_config(**sizes, output={"n_heads": 2}), 0)
    second = new_network(tiny_config(**sizes, connection=SCALAR, output=DECODER), 0)
    for network in (first, second):
        for table in (network.embedding.tokens, network.embedding.places):
            assert float(table.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert not network.embedding.tokens.weight[0].any()
    bound = (6 / 128) ** 0.5
    for part in (first.routing, first.output):
        for linear in (part.query, part.key, part.value):
            assert 0.95 * bound < linear.weight.abs().max() <= bound
    assert float(first.output.head.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    routing, eye = second.routing, torch.eye(64)
    for linear in (routing.query, routing.key, routing.value, second.output.decoder.head):
        torch.testing.assert_close(linear.weight.T @ linear.weight, eye, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [5, 8, 11])
def test_a_warm_start_takes_the_block_of_a_table_that_fits(width):
    network = tiny_network(output=DECODER, max_target=9)
    cold = network.embedding.tokens.weight.detach().clone()
    table = torch.randn(20, width, generator=torch_stream(0, "table"))
    state = torch.random.get_rng_state()
    warm_start(network, table, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    source, target = network.embedding, network.output.decoder.embedding
    n_words, shared = SIZES["vocab_size"], min(width, 8)
    for embedding in (source, target):
        weight = embedding.tokens.weight
        assert torch.equal(weight[1:, :shared], table[1:n_words, :shared])
        assert not weight[SIZES["pad_id"]].any()
    assert torch.equal(source.tokens.weight[1:, shared:], cold[1:, shared:])
    assert torch.equal(source.places.weight[:9], target.places.weight)
    assert source.places.weight is not target.places.weight
    assert float(source.places.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    spread = tiny_network(output=DECODER, spread=1.0)
    warm_start(spread, table, seed=0)
    assert float(spread.embedding.places.weight.detach().std()) == pytest.approx(1, rel=0.3)


def test_a_warm_start_needs_a_row_for_every_token():
    with pytest.raises(ModelError, match=r"each of the 17 tokens, got 16"):
        warm_start(tiny_network(), torch.zeros(16, 8), seed=0)


def test_what_is_saved_and_loaded_answers_the_same():
    (ids, mask), target_in = some_texts(), some_answers()
    saved, loaded = tiny_network(0, output=DECODER), tiny_network(1, output=DECODER)
    loaded.load_state_dict(saved.state_dict())
    logits = [each.logits(each.think(ids, mask), target_in) for each in (saved, loaded)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("form", [*FORMS, {"routing": {"every_step": True}, "step": "gated"}])
def test_half_precision_keeps_states_in_float32_and_near(form):
    network, (ids, mask) = tiny_network(**form), some_texts()
    with torch.no_grad():
        exact = network.think(ids, mask, 1).states[-1]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network.think(ids, mask, 1).states[-1]
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_only_the_plans_output_has_logits_at_the_places_of_a_text():
    network, (ids, mask) = tiny_network(output=DECODER), some_texts()
    with pytest.raises(ModelError, match=r"output.name=decoder has no logits at the places"):
        network.say(network.think(ids, mask))


@pytest.mark.parametrize(
    ("names", "registry"), [(HaltingName, HALTING), (StepName, STEPS), (OutputName, OUTPUTS)]
)
def test_all_that_can_be_asked_for_is_there(names, registry):
    assert set(get_args(names)) == set(registry)
    for name in registry:
        assert issubclass(registry.load(name), torch.nn.Module)


def test_padding_is_one_of_the_tokens():
    with pytest.raises(ConfigError, match=r"one of the 17 tokens, got 17"):
        tiny_config(pad_id=17)


def test_answering_leaves_the_network_in_training_as_it_was():
    network, (ids, mask) = tiny_network(output=DECODER, dropout=0.2).train(), some_texts()
    answers = [answer(network, ids, mask, 3, 1).ids for _ in range(2)]
    assert network.training
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    "form",
    [
        {"max_steps": 2},
        {"max_steps": 1, "connection": SCALAR, "output": DECODER},
        {"max_steps": 2, "step": "gated", "output": DECODER, "routing": {"every_step": True}},
    ],
    ids=["G1", "G2", "gated"],
)
def test_thirty_two_random_examples_are_learnt_by_heart(form):
    sizes = {"d_model": 32, "n_slots": 8, "vocab_size": 30}
    network = tiny_network(**{**sizes, **form})
    stream = torch_stream(0, "examples")
    ids, targets = (torch.randint(1, 30, (32, n), generator=stream) for n in (8, 2))
    mask = torch.ones_like(ids, dtype=torch.bool)
    target_in = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :1]], dim=1)
    optimiser = torch.optim.Adam(network.parameters(), 4e-3)
    for _ in range(250):
        logits = network.logits(network.think(ids, mask), target_in)
        optimiser.zero_grad()
        answer_loss(logits, targets, smoothing=0.0).backward()
        optimiser.step()
        if bool(is_right(logits, targets).all()):
            break
    assert torch.equal(answer(network, ids, mask, 2, 0).ids, targets)
