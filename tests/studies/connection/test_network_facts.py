"""What is said of a network's steps is true of how it was asked to think."""

import pytest
from training_toys import questions, toy_network

from fluoroscope.studies.connection.network.network_config import HaltingConfig
from fluoroscope.studies.connection.network_facts import network_facts
from fluoroscope.studies.connection.training_config import ThinkingConfig


def facts(steps):
    network = toy_network(halting=HaltingConfig(name="relative", threshold=1000))
    thinking = ThinkingConfig(steps=steps, steps_per_hop=1)
    return network_facts(network, questions(6), thinking, batch_size=4, device="cpu").values


def test_who_stops_by_itself_may_stop_early():
    found = facts("halting")
    assert (found["avg_reasoning_steps"], found["early_termination_rate"]) == (1, 1)


@pytest.mark.parametrize("steps", ["all", "sampled", "by_depth"])
def test_who_is_told_its_steps_does_not_stop_early(steps):
    found = facts(steps)
    assert found["early_termination_rate"] is None
    assert (found["avg_reasoning_steps"] < 4) == (steps == "by_depth")
