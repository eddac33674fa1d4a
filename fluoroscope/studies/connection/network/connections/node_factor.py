"""A map into each step's common space and one out of it a slot (P2):
`I_j = (sum over i != j of c_ij (S_i A_i)) B_j`.

What a slot says is a matter of the slot, what another makes of it of that one, and how much of it
arrives of the pair. The sign of c_ij means nothing, as A_i can take it over: there is no graph.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Operator,
    full_precision,
    is_pair,
    mix,
    safe_sqrt,
)
from fluoroscope.studies.connection.network.connections.pair_maps import check_rank
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class NodeFactor(Connection):
    """`A` [n, d, r] ~ N(0, 1/d), `B` [n, r, d] ~ N(0, 1/r), `c` [n, n] ~ N(0, 1 / (n - 1))."""

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        check_rank(config, d_model)
        r = config.rank
        c = torch.randn(n_slots, n_slots) * max(1, n_slots - 1) ** -0.5
        self.c = nn.Parameter(c * is_pair(n_slots, c))
        self.A = nn.Parameter(torch.randn(n_slots, d_model, r) * d_model**-0.5)
        self.B = nn.Parameter(torch.randn(n_slots, r, d_model) * r**-0.5)

    def operator(self) -> Operator:
        c, (n, _, r) = self._pairs(), self.A.shape

        def influence(slots: Tensor) -> Tensor:
            batch = len(slots)
            said = torch.bmm(slots.transpose(0, 1), self.A)
            heard = mix(c, said.reshape(n, batch * r)).view(n, batch, r)
            return torch.bmm(heard, self.B).transpose(0, 1)

        return influence

    def strengths(self) -> Float[Tensor, "n n"]:
        """The norm of `c_ij A_i B_j`, from r x r products of each slot."""
        with full_precision(self.c):
            sources = (self.A.mT @ self.A).flatten(1)
            targets = (self.B @ self.B.mT).flatten(1)
            return self._pairs().abs() * safe_sqrt(sources @ targets.T)

    def _pairs(self) -> Float[Tensor, "n n"]:
        return self.c * is_pair(self.n_slots, self.c)
