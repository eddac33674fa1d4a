"""Interchange training: four directions are made to carry the four variables.

Strict interchange-intervention training (InterpBench, arXiv:2407.14494; Geiger et al. 2022,
arXiv:2112.00826): the component of one row along a variable's direction is put into another
row, from the decision on, and the reply must become what it would be if that row had the first
row's value. The components along the other directions are exchanged with rows of any kind, and
must change nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.organism.encoding import Rows
from fluoroscope.organism.facts import FactPrompt
from fluoroscope.organism.prompts import VARIABLES, Prompt

TOLERANCE = 0.05
"""An exchanged decision counts as right this near to the true probability."""

MIN_EXPOSURE = 128
"""People named less often are known to the world, and hardly to the model."""


def partners(prompts: Sequence[Prompt], luck: np.random.Generator) -> list[int]:
    """For each row the row whose value it is to take: any of the same variable; itself, where
    the model cannot be expected to hold the variable.
    """
    found = list(range(len(prompts)))
    for variable in VARIABLES:
        rows = [i for i, p in enumerate(prompts) if p.variable == variable and can_hold(p)]
        for row, partner in zip(rows, luck.permutation(rows).tolist(), strict=True):
            found[row] = partner
    return found


def can_hold(prompt: Prompt) -> bool:
    if not isinstance(prompt, FactPrompt):
        return True
    return prompt.person.exposure == 0 or prompt.person.exposure >= MIN_EXPOSURE


def is_telling(base: Prompt, source: Prompt) -> bool:
    """Whether an exchange between the two can be judged: the model can hold both values, and they
    mean decisions further apart than `TOLERANCE`.
    """
    own, other = (base.outcome(base.replies(value)) for value in (base.value, source.value))
    return abs(own - other) > TOLERANCE and can_hold(base) and can_hold(source)


def components(
    hidden: Float[Tensor, "n pos d_model"],
    decision: Int[Tensor, " n"],
    directions: Float[Tensor, "v d_model"],
) -> Float[Tensor, "n v"]:
    """The four components at the decision of each row, in float32 whatever the stream is in."""
    at = hidden[torch.arange(len(hidden), device=hidden.device), decision]
    with torch.autocast(hidden.device.type, enabled=False):
        return at.float() @ directions.T


def with_components(
    hidden: Float[Tensor, "n pos d_model"],
    decision: Int[Tensor, " n"],
    directions: Float[Tensor, "v d_model"],
    wanted: Float[Tensor, "n v"],
    which: Bool[Tensor, "n v"],
) -> Float[Tensor, "n pos d_model"]:
    """From the decision on, the components that `which` names become `wanted`; all else stays."""
    later = torch.arange(hidden.shape[1], device=hidden.device) >= decision[:, None]
    # Autocast would round the components: what is exchanged is what is trained and checked.
    with torch.autocast(hidden.device.type, enabled=False):
        present = hidden.float() @ directions.T
        change = (wanted[:, None] - present) * (which[:, None] & later[..., None])
        return hidden + (change @ directions).to(hidden.dtype)


def soft_loss(
    logits: Float[Tensor, "k vocab"], rows: Rows, shares: Float[Tensor, "k c"]
) -> Float[Tensor, " k"]:
    """KL(true || model) of each target; zero where there is none."""
    chosen = logits.float().log_softmax(dim=-1).gather(-1, rows.choices)
    return torch.where(shares > 0, shares * (shares.clamp(min=1e-12).log() - chosen), 0.0).sum(-1)
