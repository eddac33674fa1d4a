"""Answers, token by token: each the likeliest behind those before.

Texts are independent: what one is answered depends neither on its batch mates nor on when these
are done. Keys and values are kept (`Reasoner.write`), so that a token costs one place.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from fluoroscope.core.errors import ModelError
from fluoroscope.studies.connection.network.reasoner import Ids, Mask, Reasoner, Thought

TOKENS_BETWEEN_LOOKS = 8
"""A look at the device, whether all answers are done, makes the host wait for it."""


class Answers(NamedTuple):
    """What was written, and how much of it."""

    ids: Int[Tensor, "b t"]
    """With the end where one was written; `pad_id` behind it."""

    lengths: Int[Tensor, " b"]
    """Tokens that were written, the end among them."""

    thought: Thought


@torch.no_grad()
def answer(
    reasoner: Reasoner,
    ids: Ids,
    mask: Mask,
    max_tokens: int,
    eos_id: int,
    n_steps: int | Int[Tensor, " b"] | None = None,
) -> Answers:
    """Answers of at most `max_tokens`, in evaluation mode; `n_steps` as in `Reasoner.think`.

    Of equally likely tokens the first is taken.
    """
    if not 1 <= max_tokens <= reasoner.max_target:
        raise ModelError(
            f"This reasoner writes 1 to {reasoner.max_target} tokens (max_target), got "
            f"max_tokens={max_tokens}."
        )
    was_training = reasoner.training
    reasoner.eval()
    try:
        return _written(reasoner, reasoner.think(ids, mask, n_steps), max_tokens, eos_id)
    finally:
        reasoner.train(was_training)


def _written(reasoner: Reasoner, thought: Thought, max_tokens: int, eos_id: int) -> Answers:
    writing = reasoner.begin(thought)
    last = torch.full_like(thought.n_steps, reasoner.pad_id)
    is_done = torch.zeros_like(last, dtype=torch.bool)
    lengths = torch.zeros_like(last)
    tokens: list[Tensor] = []
    looks = 1 if last.device.type == "cpu" else TOKENS_BETWEEN_LOOKS
    for index in range(max_tokens):
        if index and index % looks == 0 and bool(is_done.all()):
            break
        last = reasoner.write(writing, last).argmax(dim=-1).masked_fill(is_done, reasoner.pad_id)
        tokens.append(last)
        lengths = lengths + ~is_done
        is_done = is_done | (last == eos_id)
    # Where nobody looked for a while, columns behind the last answer are all padding.
    return Answers(torch.stack(tokens, dim=1)[:, : int(lengths.max())], lengths, thought)
