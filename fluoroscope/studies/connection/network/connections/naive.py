"""Every form as its formula reads, in loops over i and j: slow, and what the fast ones are held to.

Weights are read from the connection under the names of the formula; of `bilinear`, which stores
them in another order, by `pair_weights`. Loops go over what `unbind` gives, as each index into a
tensor that learns costs a gradient of the size of the whole.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.connections.base import Connection, Slots
from fluoroscope.studies.connection.network.connections.bilinear import Bilinear
from fluoroscope.studies.connection.network.connections.gated import Gated
from fluoroscope.studies.connection.network.connections.linear_feature import LinearFeature
from fluoroscope.studies.connection.network.connections.linear_slot import LinearSlot
from fluoroscope.studies.connection.network.connections.node_factor import NodeFactor
from fluoroscope.studies.connection.network.connections.none import NoConnection
from fluoroscope.studies.connection.network.connections.scalar import Scalar
from fluoroscope.studies.connection.network.connections.shared_basis import SharedBasis
from fluoroscope.studies.connection.network.connections.spectral import bounded
from fluoroscope.studies.connection.network.connections.top_k import TopK

Heard = Callable[[int, int], Float[Tensor, "b d"]]
"""What slot j hears of slot i."""


def naive_influence(connection: Connection, slots: Slots) -> Slots:
    """What `connection.operator()(slots)` is."""
    return _NAIVE[type(connection)](connection, slots)


def _none(_: NoConnection, slots: Slots) -> Slots:
    return _sum_over_sources(slots, lambda i, _: torch.zeros_like(slots[:, i]))


def _linear_feature(connection: LinearFeature, slots: Slots) -> Slots:
    columns = bounded(connection.C, connection.config.largest).unbind(1)
    return torch.stack([(slots * column).sum(-1) for column in columns], dim=-1)


def _linear_slot(connection: LinearSlot, slots: Slots) -> Slots:
    c = _by_pair(bounded(connection.C, connection.config.largest))
    own = torch.stack([c[j][j] * slot for j, slot in enumerate(slots.unbind(1))], dim=1)
    return own + _along_graph(slots, c)


def _bilinear(connection: Bilinear, slots: Slots) -> Slots:
    W_s, W_t = (_by_pair(weights) for weights in connection.pair_weights())
    s = slots.unbind(1)
    return _sum_over_sources(slots, lambda i, j: s[i] @ W_s[i][j] @ W_t[i][j])


def _scalar(connection: Scalar, slots: Slots) -> Slots:
    W_s, W_t = _by_pair(connection.W_s), _by_pair(connection.W_t)
    n = range(connection.n_slots)
    c = _matrix([[W_s[i][j] @ W_t[i][j] if i != j else W_s[i][j].sum() * 0 for j in n] for i in n])
    return _along_graph(slots, _by_pair(bounded(c, connection.config.largest)))


def _shared_basis(connection: SharedBasis, slots: Slots) -> Slots:
    c = [_by_pair(graph) for graph in connection.c]
    A, B, s = connection.A.unbind(), connection.B.unbind(), slots.unbind(1)

    def heard(i: int, j: int) -> Tensor:
        of_bases = [c[k][i][j] * (s[i] @ A[k] @ B[k]) for k in range(len(c))]
        return torch.stack(of_bases).sum(0)

    return _sum_over_sources(slots, heard)


def _node_factor(connection: NodeFactor, slots: Slots) -> Slots:
    c, A, B = _by_pair(connection.c), connection.A.unbind(), connection.B.unbind()
    s = slots.unbind(1)
    return _sum_over_sources(slots, lambda i, j: c[i][j] * (s[i] @ A[i]) @ B[j])


def _top_k(connection: TopK, slots: Slots) -> Slots:
    rows = []
    for i, row in enumerate(connection.c):
        # Equal sizes stay in the order of their targets.
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j: -abs(row[j].item()))
        kept = others[: connection.config.k]
        rows.append([_gated_number(c, j in kept, j != i) for j, c in enumerate(row.unbind())])
    c = bounded(_matrix(rows), connection.config.largest)
    return _along_graph(slots, _by_pair(c))


def _gated_number(c: Tensor, is_kept: bool, is_pair: bool) -> Tensor:
    """c, or a 0 that has its gradient where it was left out, or a 0 that has none."""
    if not is_pair:
        return c * 0
    return c if is_kept else c - c.detach()


def _gated(connection: Gated, slots: Slots) -> Slots:
    h = connection.config.n_heads
    is_pair = ~torch.eye(connection.n_slots, dtype=torch.bool)
    parts = []
    for c, s, a, b in zip(
        bounded(connection.c * is_pair, connection.config.largest).unbind(),
        slots.chunk(h, -1),
        (slots @ connection.W_a).chunk(h, -1),
        (slots @ connection.W_b).chunk(h, -1),
        strict=True,
    ):
        parts.append(_gated_part(_by_pair(c), s, a.unbind(1), b.unbind(1)))
    return torch.cat(parts, dim=-1)


def _gated_part(
    c: list[list[Tensor]], part: Slots, a: tuple[Tensor, ...], b: tuple[Tensor, ...]
) -> Slots:
    s, root = part.unbind(1), part.shape[-1] ** 0.5

    def heard(i: int, j: int) -> Tensor:
        return (c[i][j] + (a[i] * b[j]).sum(-1, keepdim=True) / root) * s[i]

    return _sum_over_sources(part, heard)


def _along_graph(slots: Slots, c: list[list[Tensor]]) -> Slots:
    s = slots.unbind(1)
    return _sum_over_sources(slots, lambda i, j: c[i][j] * s[i])


def _sum_over_sources(slots: Slots, heard: Heard) -> Slots:
    influence = []
    for j in range(slots.shape[1]):
        total = torch.zeros_like(slots[:, j])
        for i in range(slots.shape[1]):
            if i != j:
                total = total + heard(i, j)
        influence.append(total)
    return torch.stack(influence, dim=1)


def _by_pair(weights: Float[Tensor, "n n *rest"]) -> list[list[Tensor]]:
    return [list(row.unbind()) for row in weights.unbind()]


def _matrix(numbers: list[list[Tensor]]) -> Float[Tensor, "n n"]:
    return torch.stack([torch.stack(row) for row in numbers])


_NAIVE: dict[type[Connection], Callable[..., Slots]] = {
    NoConnection: _none,
    LinearFeature: _linear_feature,
    LinearSlot: _linear_slot,
    Bilinear: _bilinear,
    Scalar: _scalar,
    SharedBasis: _shared_basis,
    NodeFactor: _node_factor,
    TopK: _top_k,
    Gated: _gated,
}
