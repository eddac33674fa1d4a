"""The plan's model by the plan's names (seed 003): `ConnectionTransformer`.

It is a `SlotNetwork` of the plan's base form, and computes nothing of its own. What differs from
the plan is what a `SlotNetwork` does otherwise: texts are always masked (its script passes no
mask, and then takes a sum that grows with the text where a mean is meant), and each text stops
for itself. A flag changes what `forward` returns, as it does in the plan's script; new code uses
`SlotNetwork`, where it does not.
"""

from typing import Literal, TypedDict, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluoroscope.core.config import build
from fluoroscope.studies.connection.network.losses import (
    STEP_COST_WEIGHT,
    TARGET_STEPS,
    step_cost,
)
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.reasoner import Ids, Thought
from fluoroscope.studies.connection.network.slot_network import new_network


class ReasoningInfo(TypedDict):
    """What the plan calls a reasoning trace."""

    actual_steps: int
    """Of the text that took most; the plan counts steps of whole batches."""

    steps_of_each: Int[Tensor, " b"]

    states: list[Float[Tensor, "b m d"]]
    """Of slots, before the first step and after each."""

    last_change: Float[Tensor, " b"]
    """Of each text's last step, as in `Thought.changes`; 0 without steps."""


class ConnectionTransformer(nn.Module):
    """Bilinear connections, a norm a step, an absolute threshold, a token for each of the text's.

    `network` is the whole of it. Its answers, behind the text, have one token, as in the plan's
    code; give a `NetworkConfig` for longer ones.
    """

    def __init__(
        self,
        d_model: int = 256,
        num_slots: int = 128,
        bilinear_rank: int = 32,
        max_reasoning_steps: int = 6,
        convergence_threshold: float = 0.01,
        vocab_size: int = 32000,
        max_seq_len: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__()
        settings = {
            "vocab_size": vocab_size,
            "d_model": d_model,
            "n_slots": num_slots,
            "max_steps": max_reasoning_steps,
            "connection": {"name": "bilinear", "rank": bilinear_rank},
            "halting": {"name": "threshold", "threshold": convergence_threshold},
            "max_source": max_seq_len,
            "max_target": 1,
        }
        self.network = new_network(build(NetworkConfig, settings), seed)

    @overload
    def forward(
        self,
        ids: Ids,
        attention_mask: Int[Tensor, "b s"] | None = None,
        return_reasoning_trace: Literal[False] = False,
    ) -> Float[Tensor, "b s v"]: ...

    @overload
    def forward(
        self,
        ids: Ids,
        attention_mask: Int[Tensor, "b s"] | None = None,
        *,
        return_reasoning_trace: Literal[True],
    ) -> tuple[Float[Tensor, "b s v"], ReasoningInfo]: ...

    def forward(
        self,
        ids: Ids,
        attention_mask: Int[Tensor, "b s"] | None = None,
        return_reasoning_trace: bool = False,
    ) -> Float[Tensor, "b s v"] | tuple[Float[Tensor, "b s v"], ReasoningInfo]:
        """Logits at the places of the text, and the trace if asked. Without a mask, padding is
        where its token is.
        """
        mask = ids != self.network.pad_id if attention_mask is None else attention_mask.bool()
        thought = self.network.think(ids, mask)
        logits = self.network.say(thought)
        return (logits, _info(thought)) if return_reasoning_trace else logits

    def reasoning_cost_loss(
        self,
        actual_steps: int | Int[Tensor, " b"],
        target_steps: int = TARGET_STEPS,
        weight: float = STEP_COST_WEIGHT,
    ) -> Float[Tensor, ""]:
        """`weight * (steps - target)^2`, mean over texts; as in the plan, without a gradient."""
        return step_cost(torch.as_tensor(actual_steps).reshape(-1), target_steps, weight)


def _info(thought: Thought) -> ReasoningInfo:
    n_steps = thought.n_steps
    if len(thought.changes) == 0:
        last_change = torch.zeros_like(n_steps, dtype=thought.changes.dtype)
    else:
        # Changes are 0 once a text has stopped: those of its own last step.
        last = (n_steps - 1).clamp(min=0)
        last_change = thought.changes.gather(0, last[None])[0]
    return ReasoningInfo(
        actual_steps=int(n_steps.max()),
        steps_of_each=n_steps,
        states=list(thought.states),
        last_change=last_change,
    )
