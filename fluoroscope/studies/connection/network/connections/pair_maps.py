"""A map of rank r for every pair of slots, as two batched products, and what is known of such maps.

    Z[i] = S_i [b, d] @ W_s[i] [d, n r]     for all sources i,    Z[i, j=i] = 0
    I_j  = Z'[j] [b, n r] @ W_t[j] [n r, d]  for all targets j,    Z' is Z with i and j exchanged

Both weights are stored as these products read them, so that none is copied. Their gradients are
sums over the steps of a pass, and a sum of products is one product over a longer axis: autograd on
its own writes and adds the gradient of all weights in every step, which is most of its time and
memory (4 steps of N = 128, D = 256, r = 32, b = 8 on one core: 2.4 times the time of this, and
2.2 GiB on top of the weights in place of 1.4). So steps only note what their product is made of,
and `_Weights` makes it when all have come by.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.connections.base import (
    Operator,
    Slots,
    full_precision,
)
from fluoroscope.studies.connection.network.network_config import ConnectionConfig

SourceMaps = Float[Tensor, "n d n r"]
"""W_s[i, :, j, :] is the d x r of the pair (i, j)."""

TargetMaps = Float[Tensor, "n n r d"]
"""W_t[j, i] is the r x d of the pair (i, j)."""


def check_rank(config: ConnectionConfig, d_model: int) -> None:
    if config.rank > d_model:
        raise ConfigError(
            f"Maps of vectors of d_model={d_model} entries have at most that rank, got "
            f"rank={config.rank}; take a smaller rank."
        )


def pair_operator(source_maps: SourceMaps, target_maps: TargetMaps) -> Operator:
    """`I_j = sum over i != j of S_i W_s[i, j] W_t[i, j]`, to be used in any number of steps.

    Second derivatives are not supported.
    """
    device = source_maps.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        source_maps, target_maps = source_maps.to(dtype), target_maps.to(dtype)
    notes = _Notes()
    token = _Weights.apply(source_maps, target_maps, notes)
    held = source_maps.detach(), target_maps.detach()
    return lambda slots: _Step.apply(slots.to(held[0].dtype), token, *held, notes)


def pair_grams(
    source_maps: SourceMaps, target_maps: TargetMaps, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[Float[Tensor, "n r r"], Float[Tensor, "n r r"]]]:
    """`W_s^T W_s` and `W_t W_t^T` of all pairs of one source i after the other, with gradients.

    In `dtype` or better. Whatever is asked of the d x d maps themselves, such as their norm or
    their singular values, is in these.
    """
    for sources, targets in zip(source_maps.unbind(0), target_maps.unbind(1), strict=True):
        with full_precision(sources):
            into = sources.to(torch.promote_types(sources.dtype, dtype)).transpose(0, 1)
            out_of = targets.to(into.dtype)
            grams = into.mT @ into, out_of @ out_of.mT
        yield grams


class _Note(NamedTuple):
    """What the gradients of both weights are products of, in one step."""

    slots: Float[Tensor, "n b d"]
    d_ranks: Float[Tensor, "n jr b"]
    ranks: Float[Tensor, "n b ir"]
    d_influence: Float[Tensor, "n d b"]


@dataclass
class _Notes:
    """What the steps have noted in the backward pass that is going on."""

    backward_pass: int = -1
    of_steps: list[_Note] = field(default_factory=list)

    def add(self, note: _Note) -> None:
        # A pass that asked for the gradient of slots alone never came to the weights: its notes
        # are not part of the next one's sum. There is no public name for a pass.
        now = torch._C._current_graph_task_id()
        if now != self.backward_pass:
            self.of_steps.clear()
            self.backward_pass = now
        self.of_steps.append(note)

    def summed(self) -> _Note:
        """All steps as one of a longer batch, whose products are the sums of theirs."""
        slots, d_ranks, ranks, d_influence = zip(*self.of_steps, strict=True)
        self.of_steps.clear()
        return _Note(
            _joined(slots, 1), _joined(d_ranks, 2), _joined(ranks, 1), _joined(d_influence, 2)
        )


class _Weights(Function):
    """Stands for both weights in the graph; its backward runs when those of all steps have."""

    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's untyped context.
        source_maps: Tensor,
        target_maps: Tensor,
        notes: _Notes,
    ) -> Tensor:
        ctx.notes, ctx.shapes = notes, (source_maps.shape, target_maps.shape)
        return source_maps.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        slots, d_ranks, ranks, d_influence = ctx.notes.summed()
        d_sources = d_targets = None
        with full_precision(slots):
            if ctx.needs_input_grad[0]:
                d_sources = torch.bmm(slots.mT, d_ranks.mT).view(ctx.shapes[0])
            if ctx.needs_input_grad[1]:
                d_targets = torch.bmm(ranks.mT, d_influence.mT).view(ctx.shapes[1])
        return d_sources, d_targets, None


class _Step(Function):
    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's untyped context.
        slots: Slots,
        token: Tensor,  # noqa: ARG004 - ties the step to `_Weights`.
        source_maps: SourceMaps,
        target_maps: TargetMaps,
        notes: _Notes,
    ) -> Slots:
        with full_precision(slots):
            batch, (n, _, _, r) = slots.shape[0], source_maps.shape
            by_slot = slots.transpose(0, 1)
            ranks = torch.bmm(by_slot, source_maps.flatten(2)).view(n, batch, n, r)
            ranks.diagonal(dim1=0, dim2=2).zero_()
            ranks = ranks.permute(2, 1, 0, 3).reshape(n, batch, n * r)
            influence = torch.bmm(ranks, target_maps.flatten(1, 2))
        ctx.notes = notes
        ctx.save_for_backward(by_slot, ranks, source_maps, target_maps)
        return influence.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Slots) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        by_slot, ranks, source_maps, target_maps = ctx.saved_tensors
        batch, (n, _, _, r) = d_out.shape[0], source_maps.shape
        with full_precision(d_out):
            # The batch comes last here, where both products and the exchange are faster so.
            d_influence = d_out.permute(1, 2, 0).contiguous()
            d_ranks = torch.bmm(target_maps.flatten(1, 2), d_influence).view(n, n, r, batch)
            d_ranks.diagonal(dim1=0, dim2=1).zero_()
            d_ranks = d_ranks.transpose(0, 1).reshape(n, n * r, batch)
            d_slots = torch.bmm(source_maps.flatten(2), d_ranks).permute(2, 0, 1)
        if not ctx.needs_input_grad[1]:
            return d_slots, None, None, None, None
        ctx.notes.add(_Note(by_slot, d_ranks, ranks, d_influence))
        return d_slots, d_out.new_zeros(()), None, None, None


def _joined(parts: tuple[Tensor, ...], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
