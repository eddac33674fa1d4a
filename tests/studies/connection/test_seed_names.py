"""The plan's model by its names is the slot network, and its training script works on it."""

import pytest
import torch
from tiny_reasoners import some_texts, stops_apart
from torch import nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.seed_names import ConnectionTransformer
from fluoroscope.studies.connection.network.slot_network import SlotNetwork

SMALL = {
    "d_model": 8,
    "num_slots": 5,
    "bilinear_rank": 2,
    "max_reasoning_steps": 3,
    "convergence_threshold": 0.01,
    "vocab_size": 17,
    "max_seq_len": 12,
}


def padded_texts():
    ids, mask = some_texts()
    return ids * mask, mask


def test_its_settings_are_those_of_a_slot_network():
    config = ConnectionTransformer(**SMALL).network.config
    assert (config.d_model, config.n_slots, config.max_steps) == (8, 5, 3)
    assert (config.connection.name, config.connection.rank) == ("bilinear", 2)
    assert (config.halting.name, config.halting.threshold) == ("threshold", 0.01)
    assert (config.vocab_size, config.max_source) == (17, 12)
    assert (config.step, config.output.name, config.n_source_layers) == (
        "relu_norm",
        "slots_to_sequence",
        0,
    )


def test_its_defaults_are_the_plans_base_config_and_have_its_268_million_connections():
    with torch.device("meta"):
        network = ConnectionTransformer().network
    defaults = NetworkConfig()
    assert network.config.model_copy(update={"max_target": 512}) == defaults
    pairs = sum(weight.numel() for weight in network.connection.parameters())
    assert pairs == 2 * 128**2 * 256 * 32 == 268_435_456


def test_it_computes_what_the_network_does():
    (ids, mask), model = padded_texts(), ConnectionTransformer(**SMALL).eval()
    assert isinstance(model.network, SlotNetwork)
    expected = model.network.say(model.network.think(ids, mask))
    assert torch.equal(model(ids, mask.long()), expected)
    assert expected.shape == (*ids.shape, 17)


def test_without_a_mask_padding_is_where_its_token_is():
    (ids, mask), model = padded_texts(), ConnectionTransformer(**SMALL).eval()
    assert torch.equal(model(ids), model(ids, mask.long()))


def test_the_trace_says_what_the_plans_does():
    (ids, mask), model = padded_texts(), ConnectionTransformer(**SMALL).eval()
    logits, info = model(ids, mask.long(), return_reasoning_trace=True)
    assert torch.equal(logits, model(ids, mask.long()))
    thought = model.network.think(ids, mask)
    assert info["actual_steps"] == 3
    assert info["steps_of_each"].tolist() == [3] * len(ids)
    assert len(info["states"]) == 4
    assert torch.equal(info["states"][-1], thought.states[-1])
    torch.testing.assert_close(info["last_change"], thought.changes[-1])


def test_the_last_change_is_of_each_texts_own_last_step():
    ids, mask = padded_texts()
    model = ConnectionTransformer(**SMALL)
    model.network = stops_apart("threshold")
    info = model(ids, mask.long(), return_reasoning_trace=True)[1]
    n_steps, changes = info["steps_of_each"], model.network.think(ids, mask).changes
    assert n_steps.min() < n_steps.max()
    for row, n in enumerate(n_steps.tolist()):
        assert info["last_change"][row] == changes[n - 1, row] > 0
    still = ConnectionTransformer(**{**SMALL, "max_reasoning_steps": 0})
    assert not still(ids, return_reasoning_trace=True)[1]["last_change"].any()


def test_the_plans_cost_takes_a_count_or_one_of_each_text():
    model = ConnectionTransformer(**SMALL)
    assert float(model.reasoning_cost_loss(6)) == pytest.approx(0.004)
    assert float(model.reasoning_cost_loss(6, target_steps=5, weight=2.0)) == 2
    assert float(model.reasoning_cost_loss(torch.tensor([4, 6]))) == pytest.approx(0.002)


def test_the_plans_training_loop_learns():
    ids, model = padded_texts()[0], ConnectionTransformer(**SMALL, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    losses = []
    for _ in range(30):
        logits, reasoning_info = model(ids, return_reasoning_trace=True)
        loss = nn.CrossEntropyLoss()(logits.view(-1, logits.size(-1)), ids.view(-1))
        reasoning_cost = model.reasoning_cost_loss(
            reasoning_info["actual_steps"], target_steps=4, weight=0.001
        )
        (loss + reasoning_cost).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_setting_that_cannot_be_is_named():
    with pytest.raises(ConfigError, match="n_slots"):
        ConnectionTransformer(**{**SMALL, "num_slots": 0})
