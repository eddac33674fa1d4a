"""One number a pair: `I_j = sum over i != j of c_ij S_i`, c_ij = <w_s[i, j], w_t[i, j]> (G2).

The rank changes how c_ij is found and not what it can be: any rank reaches every graph. The counts
published for it (N = 768, r = 1: 1,179,648) are with the vectors of the diagonal, which do nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Operator,
    is_pair,
    mix,
)
from fluoroscope.studies.connection.network.connections.spectral import bounded
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class Scalar(Connection):
    """W_s, W_t [n, n, r], random vectors of norm 1, and 0 for i = j."""

    is_bounded = True

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        self.W_s = nn.Parameter(_unit_vectors(n_slots, config.rank))
        self.W_t = nn.Parameter(_unit_vectors(n_slots, config.rank))

    def operator(self) -> Operator:
        graph = self.graphs()[0]
        return lambda slots: mix(graph, slots)

    def strengths(self) -> Float[Tensor, "n n"]:
        return self.graphs()[0].abs()

    def graphs(self) -> Float[Tensor, "1 n n"]:
        c = (self.W_s * self.W_t).sum(-1) * is_pair(self.n_slots, self.W_s)
        return bounded(c, self.config.largest)[None]


def _unit_vectors(n_slots: int, rank: int) -> Float[Tensor, "n n r"]:
    vectors = functional.normalize(torch.randn(n_slots, n_slots, rank), dim=-1)
    return vectors * is_pair(n_slots, vectors)[..., None]
