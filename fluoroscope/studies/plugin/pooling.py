"""Pooling: the hidden states of a text -> the one vector that stands for it.

`cls` is the first token, which an encoder fills with the whole text; `last` the last real token,
which is what a decoder has instead. `masked_mean` is over real tokens. `mean` is over all
positions, padding included, as the authors' `average_pooling_with_padding` is: a row's vector
then depends on how far its batch is padded.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.core.registry import nearest
from fluoroscope.models.encoders import Encoder

Hidden = Float[Tensor, "batch pos d_model"]
Mask = Int64[Tensor, "batch pos"]
Pooled = Float[Tensor, "batch d_model"]

ALIASES: Mapping[str, str] = {
    "average_pooling_with_padding": "mean",
    "average_pooling_without_padding": "masked_mean",
}
"""The authors' names of two of the poolings."""


def pool(name: str, hidden: Hidden, mask: Mask) -> Pooled:
    """One vector a row; sums are taken in float32 at least."""
    return POOLINGS[pooling_name(name)](hidden, mask)


def pooling_name(name: str) -> str:
    """The name of `POOLINGS` behind a name or an alias; unknown names are a `ConfigError`."""
    known = ALIASES.get(name, name)
    if known not in POOLINGS:
        names = [*POOLINGS, *ALIASES]
        raise ConfigError(
            f"There is no pooling {name!r}.{nearest(name, names)} There are: {', '.join(names)}."
        )
    return known


def check_pooling(name: str, encoder: Encoder) -> str:
    """`pooling_name`, and a `ModelError` where `cls` would read a token that carries nothing."""
    known = pooling_name(name)
    if known != "cls":
        return known
    if encoder.kind == "decoder":
        raise ModelError(
            f"{encoder.identity.id} is a decoder: its first token sees no other, so that "
            "pooling=cls gives every text the same vector. Take pooling=last or masked_mean."
        )
    tokenizer = encoder.tokenizer
    first = tokenizer("a")["input_ids"][0]
    if first not in (tokenizer.cls_token_id, tokenizer.bos_token_id):
        raise ModelError(
            f"The tokenizer of {encoder.identity.id} puts no token in front of a text that could "
            "stand for all of it, as pooling=cls needs. Take pooling=masked_mean."
        )
    return known


def _cls(hidden: Hidden, _: Mask) -> Pooled:
    return hidden[:, 0]


def _mean(hidden: Hidden, _: Mask) -> Pooled:
    return _wide(hidden).mean(1).to(hidden.dtype)


def _masked_mean(hidden: Hidden, mask: Mask) -> Pooled:
    kept = mask.bool().unsqueeze(-1)
    # Chosen and not multiplied by 0: whatever padding holds stays out, NaN too.
    total = torch.where(kept, _wide(hidden), 0.0).sum(1)
    return (total / kept.sum(1).clamp(min=1)).to(hidden.dtype)


def _last(hidden: Hidden, mask: Mask) -> Pooled:
    positions = torch.arange(mask.shape[1], device=mask.device)
    rows = torch.arange(len(mask), device=mask.device)
    return hidden[rows, (positions * mask.bool()).argmax(1)]


def _wide(hidden: Hidden) -> Hidden:
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))


POOLINGS: Mapping[str, Callable[[Hidden, Mask], Pooled]] = {
    "cls": _cls,
    "mean": _mean,
    "masked_mean": _masked_mean,
    "last": _last,
}
