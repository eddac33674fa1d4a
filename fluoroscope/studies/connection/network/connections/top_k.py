"""Each slot speaks to k others: `I_j = sum over i != j of c_ij S_i` over the kept pairs (P3).

Of the numbers of a slot the k largest in size are used, and all learn, the others as if they were
used (straight-through, Bengio et al. 2013, arXiv:1308.3432): a pair that was left out can come
back. Hard-concrete gates (Louizos et al. 2018) would draw noise in training, have a second number
a pair and leave k to a weight in the loss; here k is what was asked for, at any time.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Operator,
    is_pair,
    mix,
)
from fluoroscope.studies.connection.network.connections.spectral import bounded
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class TopK(Connection):
    """`c` [n, n] ~ N(0, 1/k)."""

    is_bounded = True

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        if config.k >= n_slots:
            raise ConfigError(
                f"A slot can reach {n_slots - 1} others of {n_slots} slots, got k={config.k}; "
                f"take a smaller k or more slots."
            )
        c = torch.randn(n_slots, n_slots) * config.k**-0.5
        self.c = nn.Parameter(c * is_pair(n_slots, c))

    def operator(self) -> Operator:
        graph = self.graphs()[0]
        return lambda slots: mix(graph, slots)

    def strengths(self) -> Float[Tensor, "n n"]:
        return self.graphs()[0].abs()

    def graphs(self) -> Float[Tensor, "1 n n"]:
        """Exactly 0 at pairs that are left out; gradients are those of all pairs."""
        c = self.c * is_pair(self.n_slots, self.c)
        # What is left out is c - c, which is 0 to the last bit.
        straight_through = c - (c * ~self.kept()).detach()
        return bounded(straight_through, self.config.largest)[None]

    @torch.no_grad()
    def kept(self) -> Bool[Tensor, "n n"]:
        """The k pairs of each source i; of equals those of the first targets."""
        sizes = self.c.abs().masked_fill(~is_pair(self.n_slots, self.c), -1)
        strongest = sizes.sort(dim=1, descending=True, stable=True).indices[:, : self.config.k]
        return torch.zeros_like(sizes, dtype=torch.bool).scatter(1, strongest, True)
