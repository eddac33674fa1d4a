"""Maps that all pairs share: `I_j = sum over i != j, k of c_ijk (S_i A_k B_k)` (P1).

The basis decomposition of relational graph networks (Schlichtkrull et al. 2018, arXiv:1703.06103)
with each pair a relation of its own: a pair has M numbers of its own in place of two matrices.
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


class SharedBasis(Connection):
    """`c` [m, n, n] ~ N(0, 1 / (m (n - 1))), `A` [m, d, r] ~ N(0, 1/d), `B` [m, r, d] ~ N(0, 1/r).

    `c` is stored a graph a basis, as the steps mix by it.
    """

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        check_rank(config, d_model)
        m, r = config.n_bases, config.rank
        c = torch.randn(m, n_slots, n_slots) * (m * max(1, n_slots - 1)) ** -0.5
        self.c = nn.Parameter(c * is_pair(n_slots, c))
        self.A = nn.Parameter(torch.randn(m, d_model, r) * d_model**-0.5)
        self.B = nn.Parameter(torch.randn(m, r, d_model) * r**-0.5)

    def operator(self) -> Operator:
        m, r, n = self.config.n_bases, self.config.rank, self.n_slots
        c = self._pairs()
        # All bases side by side: one product into m ranks, one out of them.
        into = self.A.transpose(0, 1).flatten(1)
        out_of = self.B.flatten(0, 1)

        def influence(slots: Tensor) -> Tensor:
            batch = len(slots)
            in_ranks = (slots @ into).unflatten(-1, (m, r)).permute(2, 1, 0, 3)
            mixed = mix(c, in_ranks.reshape(m, n, batch * r)).view(m, n, batch, r)
            return mixed.permute(2, 1, 0, 3).flatten(2) @ out_of

        return influence

    def strengths(self) -> Float[Tensor, "n n"]:
        """The norm of `sum over k of c_ijk A_k B_k`, from the products of all bases."""
        with full_precision(self.c):
            c = self._pairs()
            squares = torch.einsum("kij,kl,lij->ij", c, self.basis_products(), c)
            return safe_sqrt(squares)

    def basis_products(self) -> Float[Tensor, "m m"]:
        """`<V_k, V_l> = tr(A_k^T A_l B_l B_k^T)` of the maps V_k = A_k B_k, from r x r products."""
        sources = torch.einsum("kdr,lds->klrs", self.A, self.A)
        targets = torch.einsum("krd,lsd->klrs", self.B, self.B)
        return (sources * targets).sum((-1, -2))

    def _pairs(self) -> Float[Tensor, "m n n"]:
        return self.c * is_pair(self.n_slots, self.c)
