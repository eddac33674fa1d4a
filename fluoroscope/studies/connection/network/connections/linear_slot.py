"""One matrix on the slots: `I = C^T S`, the first connection layer as its text means it (G0).

The diagonal is part of it, as in the first layer, whose matrix had no zeros: a slot hears itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Operator,
    is_pair,
    mix,
)
from fluoroscope.studies.connection.network.connections.linear_feature import STD
from fluoroscope.studies.connection.network.connections.spectral import bounded
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class LinearSlot(Connection):
    """C [n, n] ~ N(0, 0.01^2), from i to j."""

    is_blind_to_itself = False
    is_bounded = True

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        self.C = nn.Parameter(STD * torch.randn(n_slots, n_slots))

    def operator(self) -> Operator:
        graph = self.graphs()[0]
        return lambda slots: mix(graph, slots)

    def strengths(self) -> Float[Tensor, "n n"]:
        graph = self.graphs()[0]
        return graph.abs() * is_pair(self.n_slots, graph)

    def graphs(self) -> Float[Tensor, "1 n n"]:
        """With the diagonal: what a slot hears of itself."""
        return bounded(self.C, self.config.largest)[None]
