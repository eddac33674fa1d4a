"""What one batch costs a reasoner: the loss of its answers, and the prices of how it found them.

Axes as in `network.reasoner`; h hops.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.asking import Asked
from fluoroscope.studies.connection.network.connections.base import Connection
from fluoroscope.studies.connection.network.connections.bilinear import Bilinear
from fluoroscope.studies.connection.network.connections.penalties import (
    l0_sparsity,
    l1_sparsity,
    pair_regulariser,
    scalar_regulariser,
    spectral_penalty,
)
from fluoroscope.studies.connection.network.losses import (
    IGNORED,
    answer_loss,
    deep_supervision,
    expected_steps,
    halting_loss,
    is_right,
    ponder_divergence,
    step_cost,
    unevenness,
)
from fluoroscope.studies.connection.network.reasoner import Reasoner, Thought
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.training_config import (
    PricesConfig,
    ThinkingConfig,
    TrainingConfig,
)

PARTS = (
    "answer",
    "halting",
    "expected_steps",
    "ponder",
    "step_cost",
    "unevenness",
    "orthogonality",
    "sparsity",
    "pairs",
    "spectral",
)
"""Names of all parts that a cost may have."""


class Cost(NamedTuple):
    """Of one batch."""

    total: Float[Tensor, ""]
    """With gradients."""

    parts: dict[str, Float[Tensor, ""]]
    """Each without its price; without gradients. `answer` and what is priced."""

    thought: Thought


def steps_of(
    asked: Asked, config: ThinkingConfig, reasoner: Reasoner, drawn: int | None = None
) -> int | Int[Tensor, " b"] | None:
    """How many steps `think` is asked for; `drawn` is of a batch that is trained on."""
    if reasoner.max_steps == 0:
        return None
    match config.steps:
        case "halting":
            return None
        case "all":
            return reasoner.max_steps
        case "sampled":
            return reasoner.max_steps if drawn is None else drawn
        case "by_depth":
            if asked.depths is None:
                raise ConfigError(
                    "thinking.steps=by_depth needs questions that say how many hops they take, all "
                    "of them and from 1, such as those of pointer_fixed; these do not. Take "
                    "thinking.steps=halting."
                )
            return config.steps_per_hop * asked.depths


def cost_of(
    reasoner: Reasoner,
    asked: Asked,
    config: TrainingConfig,
    *,
    n_targets: int,
    share: float,
    drawn: int | None,
    draws: torch.Generator,
) -> Cost:
    """`n_targets` are the tokens to be answered of all batches of an optimiser's step, and `share`
    this one's part of their texts, so that the costs of the batches add up. `drawn` is a number of
    steps, `draws` a generator of the CPU.
    """
    n_steps = steps_of(asked, config.thinking, reasoner, drawn)
    thought = reasoner.think(asked.texts.ids, asked.texts.mask, n_steps)
    answer = _answer(reasoner, asked, config, thought, n_targets)
    total, parts = answer, {"answer": answer}
    for name, price, value in _priced(reasoner, asked, config.prices, thought, draws):
        total = total + price * share * value
        parts[name] = share * value
    return Cost(total, {name: value.detach() for name, value in parts.items()}, thought)


def _answer(
    reasoner: Reasoner,
    asked: Asked,
    config: TrainingConfig,
    thought: Thought,
    n_targets: int,
) -> Tensor:
    n_done, texts = len(thought.states) - 1, asked.texts
    if config.thinking.supervised == "every" and n_done > 0:
        after = list(range(1, _last_step(reasoner, asked, config, n_done) + 1))
        return deep_supervision(
            reasoner,
            thought,
            texts.target_in,
            texts.labels,
            after,
            config.label_smoothing,
            n_targets,
        )
    if config.thinking.supervised == "hops" and n_done > 0:
        return _hops(reasoner, asked, config, thought, n_targets)
    logits = reasoner.logits(thought, texts.target_in)
    return answer_loss(logits, texts.labels, config.label_smoothing, n_targets)


def _last_step(reasoner: Reasoner, asked: Asked, config: TrainingConfig, n_done: int) -> int:
    """That the whole step of the optimiser does: texts of this part may all be done before."""
    if config.thinking.steps != "by_depth" or asked.deepest is None:
        return n_done
    whole = config.thinking.steps_per_hop * asked.deepest
    return min(max(n_done, whole), max(n_done, reasoner.max_steps))


def _hops(
    reasoner: Reasoner, asked: Asked, config: TrainingConfig, thought: Thought, n_targets: int
) -> Tensor:
    """Mean over hops of what the states after each of them say, and of what the last ones say where
    more is done. Of steps that a text did not do nothing is asked but its answer.
    """
    if not asked.hops:
        raise ConfigError(
            "thinking.supervised=hops needs questions that say what is found after each hop, such "
            "as those of pointer_fixed; these do not. Take thinking.supervised=last."
        )
    assert asked.depths is not None, "what says its hops says how many"
    losses, a_hop = [], config.thinking.steps_per_hop
    for hop, written in enumerate(asked.hops, start=1):
        after = min(hop * a_hop, len(thought.states) - 1)
        is_done = (hop * a_hop <= thought.n_steps) | (hop >= asked.depths)
        labels = written.labels.masked_fill(~is_done[:, None], IGNORED)
        logits = reasoner.logits(thought, written.target_in, after)
        losses.append(answer_loss(logits, labels, config.label_smoothing, n_targets))
    if len(asked.hops) * a_hop < len(thought.states) - 1:
        logits = reasoner.logits(thought, asked.texts.target_in)
        losses.append(answer_loss(logits, asked.texts.labels, config.label_smoothing, n_targets))
    return torch.stack(losses).mean()


def _priced(
    reasoner: Reasoner,
    asked: Asked,
    prices: PricesConfig,
    thought: Thought,
    draws: torch.Generator,
) -> list[tuple[str, float, Tensor]]:
    """Name, price and value of each part; means over texts."""
    found: list[tuple[str, float, Tensor]] = []
    if thought.halt_logits is not None and len(thought.halt_logits):
        if prices.halting:
            right = torch.stack(_right_by_step(reasoner, asked, thought))
            found.append(("halting", prices.halting, halting_loss(thought.halt_logits, right)))
        expected = expected_steps(thought.halt_logits).mean() - 1
        found.append(("expected_steps", prices.steps, expected))
        if prices.ponder:
            value = ponder_divergence(thought.halt_logits, 1 / prices.ponder_steps)
            found.append(("ponder", prices.ponder, value))
    elif reasoner.max_steps:
        found.append(("step_cost", 0.0, step_cost(thought.n_steps, weight=prices.steps)))
    if prices.unevenness and thought.routing is not None:
        found.append(("unevenness", prices.unevenness, unevenness(thought.routing)))
    if isinstance(reasoner, SlotNetwork):
        found += _of_connection(reasoner.connection, prices, draws)
    return found


@torch.no_grad()
def _right_by_step(reasoner: Reasoner, asked: Asked, thought: Thought) -> list[Bool[Tensor, " b"]]:
    steps, texts = range(1, len(thought.states)), asked.texts
    return [is_right(reasoner.logits(thought, texts.target_in, at), texts.labels) for at in steps]


def _of_connection(
    connection: Connection, prices: PricesConfig, draws: torch.Generator
) -> list[tuple[str, float, Tensor]]:
    found: list[tuple[str, float, Tensor]] = []
    if prices.orthogonality:
        is_pairs = isinstance(connection, Bilinear)
        value = pair_regulariser(connection) if is_pairs else scalar_regulariser(connection, draws)
        found.append(("orthogonality", prices.orthogonality, value))
    if prices.sparsity:
        found.append(("sparsity", prices.sparsity, l1_sparsity(connection)))
    if prices.pairs:
        found.append(("pairs", prices.pairs, l0_sparsity(connection)))
    if prices.spectral:
        found.append(("spectral", prices.spectral, spectral_penalty(connection)))
    return found
