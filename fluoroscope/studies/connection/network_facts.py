"""What a trained slot network is like inside, on the questions of one side.

Axes: n questions, m slots, k steps.
"""

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.data.labelled.batches import side_batches
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.network.connections.graph_metrics import graph_metrics
from fluoroscope.studies.connection.network.slot_metrics import (
    avg_reasoning_steps,
    early_termination_rate,
    reasoning_adaptivity,
    slot_label_information,
    slot_shares,
    slot_specialization,
    slot_usage,
)
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.objective import steps_of
from fluoroscope.studies.connection.training_config import ThinkingConfig

N_SHOWN = 8
"""Questions whose states are kept at every step, to be drawn."""


class NetworkFacts(NamedTuple):
    values: dict[str, Any]  # Any: numbers, and None where one does not apply.
    tensors: dict[str, Tensor]
    """`strengths` and `graph` of the connection, `shares` of tokens a question, `trajectories` of
    the first questions: `[N_SHOWN, k + 1, m, d_model]`, the last states again once stopped."""


@torch.no_grad()
def network_facts(
    network: SlotNetwork,
    questions: Questions,
    thinking: ThinkingConfig,
    *,
    batch_size: int,
    device: str,
    labels: Int[np.ndarray, " n"] | None = None,
) -> NetworkFacts:
    """`labels` are the questions' answers as numbers, where there are few of them."""
    network.to(device).eval()
    shares, n_steps = _read(network, questions, thinking, batch_size, device)
    connection = network.connection
    graph = connection.graph()
    tensors = {
        "strengths": connection.strengths().float().cpu(),
        "shares": torch.from_numpy(shares).float(),
        "trajectories": _trajectories(network, questions, thinking, device),
    }
    if graph is not None:
        tensors["graph"] = graph.float().cpu()
    information = None if labels is None else slot_label_information(shares, labels)
    # Where steps are told, nobody stops early: some were told fewer.
    halts = thinking.steps == "halting"
    early = early_termination_rate(n_steps, network.max_steps) if halts else None
    values = {
        **asdict(graph_metrics(connection)),
        "slot_specialization": slot_specialization(shares),
        "slot_usage": slot_usage(shares),
        "slot_label_information": information,
        "avg_reasoning_steps": avg_reasoning_steps(n_steps),
        "early_termination_rate": early,
        "reasoning_adaptivity": reasoning_adaptivity(n_steps),
    }
    return NetworkFacts(values, {name: one.contiguous() for name, one in tensors.items()})


def _read(
    network: SlotNetwork,
    questions: Questions,
    thinking: ThinkingConfig,
    batch_size: int,
    device: str,
) -> tuple[Float[np.ndarray, "n m"], Int[np.ndarray, " n"]]:
    shares = np.zeros((len(questions), network.config.n_slots))
    n_steps = np.zeros(len(questions), np.int64)
    for rows in side_batches(questions.lengths, batch_size):
        asked = questions.ask(rows, device)
        thought = network.think(
            asked.texts.ids, asked.texts.mask, steps_of(asked, thinking, network)
        )
        assert thought.routing is not None, "a slot network says what tokens gave"
        shares[rows] = slot_shares(thought.routing.double().cpu().numpy())
        n_steps[rows] = thought.n_steps.cpu().numpy()
    return shares, n_steps


def _trajectories(
    network: SlotNetwork, questions: Questions, thinking: ThinkingConfig, device: str
) -> Float[Tensor, "shown steps m d"]:
    asked = questions.ask(np.arange(min(N_SHOWN, len(questions))), device)
    thought = network.think(asked.texts.ids, asked.texts.mask, steps_of(asked, thinking, network))
    return torch.stack(list(thought.states), dim=1).float().cpu()
