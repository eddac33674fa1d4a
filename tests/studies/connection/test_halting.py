"""A text stops by itself, stays as it is from then on, and nobody waits for it in vain."""

import pytest
import torch
from tiny_reasoners import REASONERS, learned_to_stop, some_texts, tiny_network

from fluoroscope.studies.connection.network.halting import HALTING
from fluoroscope.studies.connection.network.network_config import HaltingConfig
from fluoroscope.studies.connection.network.slot_metrics import (
    early_termination_rate,
    reasoning_adaptivity,
)
from fluoroscope.studies.connection.network.steps.base import Moved

STOPPING = (
    "stops by its updates",
    "stops by its change",
    "reads in every step",
    "learned when to stop",
)
UPDATES = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 1.0], [5.1, 0.0]], [[0.0, 0], [0, 0]]])


def halting_of(name, threshold=5.0):
    config = HaltingConfig(name=name, threshold=threshold)
    return HALTING.load(name)(2, config)


def test_the_plans_rule_goes_by_the_longest_update_of_a_slot():
    moved = Moved(torch.zeros(3, 2, 2), UPDATES)
    assert halting_of("threshold")(moved, torch.ones(3)).stops.tolist() == [True, False, True]


def test_the_relative_rule_goes_by_the_change():
    moved = Moved(torch.zeros(3, 2, 2), UPDATES)
    halt = halting_of("relative", 0.1)(moved, torch.tensor([0.09, 0.1, 0.0]))
    assert halt.stops.tolist() == [True, False, True]


def test_a_fixed_number_of_steps_never_stops():
    moved = Moved(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2))
    assert not halting_of("fixed")(moved, torch.zeros(3)).stops.any()


def test_a_head_stops_where_it_holds_stopping_for_likelier_and_begins_by_going_on():
    halting = halting_of("learned")
    moved = Moved(torch.tensor([[[1.0, 0], [0, 0]], [[0.0, 0], [-1, 9]]]), torch.zeros(2, 2, 2))
    begun = halting(moved, torch.zeros(2))
    assert begun.logits.tolist() == [-3.0, -3.0]
    with torch.no_grad():
        halting.head.weight.copy_(torch.tensor([[8.0, 0.0]]))
    halt = halting(moved, torch.zeros(2))
    assert halt.logits.tolist() == [1.0, -7.0]
    assert halt.stops.tolist() == [True, False]


@pytest.mark.parametrize("name", STOPPING)
def test_the_rate_of_early_ends_is_between_never_and_always_on_texts_that_differ(name):
    network = REASONERS[name]()
    with torch.no_grad():
        n_steps = network.think(*some_texts(40)).n_steps.numpy()
    assert 0.1 < early_termination_rate(n_steps, network.max_steps) < 0.9
    assert reasoning_adaptivity(n_steps) > 0


@pytest.mark.parametrize("name", STOPPING)
def test_a_text_that_has_stopped_keeps_its_states_to_the_last_bit(name):
    network = REASONERS[name]().train()
    network.requires_grad_(False)
    texts = some_texts(12)
    thought = network.think(*texts)
    assert len(thought.states) == network.max_steps + 1
    assert thought.n_steps.min() < network.max_steps
    for row, n in enumerate(thought.n_steps.tolist()):
        for after in range(n, network.max_steps):
            assert torch.equal(thought.states[after + 1][row], thought.states[n][row])
        assert torch.equal(thought.routing[row], network.think(*texts, n).routing[row])
        assert not thought.changes[n:, row].any()
        assert thought.changes[:n, row].min() > 0


@pytest.mark.parametrize("name", STOPPING)
def test_training_does_all_steps_and_stops_texts_where_evaluation_does(name):
    network, texts = REASONERS[name]().double(), some_texts(12)
    with torch.no_grad():
        evaluated, trained = network.eval().think(*texts), network.train().think(*texts)
    assert evaluated.n_steps.tolist() == trained.n_steps.tolist()
    assert len(trained.changes) == network.max_steps
    torch.testing.assert_close(evaluated.states[-1], trained.states[-1], atol=0, rtol=0)


def test_evaluation_ends_when_all_texts_have_stopped():
    network = tiny_network(step="gated", halting={"name": "relative", "threshold": 1e6})
    ids, mask = some_texts()
    thought = network.think(ids, mask)
    assert thought.n_steps.tolist() == [1] * len(ids)
    assert len(thought.states) == 2
    # What they had then is what they have after any later step.
    target_in = torch.zeros(len(ids), 1, dtype=torch.int64)
    assert torch.equal(network.logits(thought, target_in, 4), network.logits(thought, target_in))


def test_a_device_is_asked_only_every_few_steps():
    looks = []

    class Watched(torch.Tensor):
        """All texts have stopped; says so when asked, and is on a device."""

        device = torch.device("cuda")

        def any(self):
            looks.append(index)
            return False

    network = tiny_network(halting={"name": "relative", "threshold": 1.0})
    goes_on = torch.zeros(2, dtype=torch.bool).as_subclass(Watched)
    for index in range(9):
        network._has_ended(goes_on, index)
    assert looks == [4, 8]
    network.train()
    network._has_ended(goes_on, 4)
    assert looks == [4, 8]


def test_steps_that_are_told_are_done_whatever_halting_says():
    network = tiny_network(step="gated", halting={"name": "relative", "threshold": 1e6})
    ids, mask = some_texts()
    assert network.think(ids, mask, 3).n_steps.tolist() == [3] * len(ids)
    each = torch.tensor([0, 1, 2, 3, 4, 5])
    assert torch.equal(network.think(ids, mask, each).n_steps, each)


def test_halt_logits_are_there_where_stopping_is_learnt_and_train_the_head():
    ids, mask = some_texts()
    network = learned_to_stop()
    thought = network.think(ids, mask, 3)
    assert thought.halt_logits.shape == (3, len(ids))
    thought.halt_logits.sum().backward()
    assert network.get_parameter("halting.head.weight").grad.abs().min() > 0
    assert network.embedding.tokens.weight.grad.abs().sum() > 0
    assert tiny_network().think(ids, mask).halt_logits is None
