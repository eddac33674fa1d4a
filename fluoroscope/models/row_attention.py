"""Attention of rows that share segments, for every network whose attention can be replaced.

Attention to a segment is one matrix product for all of its rows (as in Hydragen, Juravsky et
al. 2024, arXiv:2402.05099), so a hundred tokens of prompt cost a thousand rows little more
than one. The softmax runs over shared and own columns together, so nothing is approximated.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from fluoroscope.models.row_cache import Layout, RowCache

_NAME = "fluoroscope_rows"

# Attention is called by the network and cannot be handed anything.
_current: list[Layout] = []


@contextmanager
def following(cache: RowCache, layout: Layout, is_gathered: bool) -> Iterator[None]:
    """Inside the `with` block a pass with `cache` follows `layout`.

    `is_gathered` is for networks whose attention cannot be replaced: every row gets all of its
    keys in one piece.
    """
    cache.layout, cache.is_gathered = layout, is_gathered
    _current.append(layout)
    try:
        yield
    finally:
        _current.pop()
        cache.layout = None


@contextmanager
def row_attention(network: PreTrainedModel) -> Iterator[None]:
    """Inside the `with` block attention is `attend`, and transformers makes no masks."""
    before = network.config._attn_implementation
    # Not registered with the mask interface: the layout says what is seen.
    AttentionInterface.register(_NAME, attend)
    network.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


def attend(
    module: nn.Module,
    query: Float[Tensor, "rows heads new d_head"],
    key: Float[Tensor, "rows kv width d_head"],
    value: Float[Tensor, "rows kv width d_head"],
    _mask: None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Float[Tensor, "rows new heads d_head"], None]:
    """Attention of new tokens to the segment of their row and to its own columns."""
    layout, layer = _current[-1], _layer_of(module)
    rows, heads, new, d_head = query.shape
    kv, width, n_shared = key.shape[1], key.shape[2], layout.n_shared
    scale = d_head**-0.5 if scaling is None else scaling
    # The queries of all heads that read one key head are one matrix.
    query = (query * scale).reshape(rows, kv, -1, d_head)
    scores = query.new_empty(rows, kv, query.shape[2], n_shared + width)
    scores[..., n_shared:] = query @ key.transpose(2, 3)
    for group in layout.groups:
        part = _products(query[group.rows], group.segment.parts[layer].keys.transpose(1, 2))
        scores[group.rows, ..., : part.shape[-1]] = part
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    seen = layout.seen_in(sliding_window)
    if seen is not None:
        scores.view(rows, -1, new, n_shared + width).masked_fill_(~seen, -torch.inf)
    precision = torch.promote_types(query.dtype, torch.float32)
    shares = scores.softmax(dim=-1, dtype=precision).to(query.dtype)
    mixed = shares[..., n_shared:] @ value
    for group in layout.groups:
        segment = group.segment.parts[layer].values
        mixed[group.rows] += _products(shares[group.rows, ..., : segment.shape[1]], segment)
    return mixed.view(rows, heads, new, d_head).transpose(1, 2), None


def _products(
    rows: Float[Tensor, "some kv n inner"], matrix: Float[Tensor, "kv inner outer"]
) -> Float[Tensor, "some kv n outer"]:
    """`rows @ matrix`, with the rows of a head as one large factor instead of many small ones."""
    some, kv, n, inner = rows.shape
    product = rows.transpose(0, 1).reshape(kv, some * n, inner) @ matrix
    return product.view(kv, some, n, -1).transpose(0, 1)


def _layer_of(module: nn.Module) -> int:
    layer = module.layer_idx
    assert isinstance(layer, int)
    return layer
