"""A graph that the input may change: c_ij + <S_i W_a, S_j W_b> / sqrt(d) (P4).

`I_j = sum over i != j of (that) S_i`: a static graph, and attention without a softmax beside it.
With heads each part of the width has a graph, queries and keys of its own, and d is the width of a
part. A slot does not hear itself, but has a say in how it hears the others.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Operator,
    is_pair,
    mix,
    safe_sqrt,
)
from fluoroscope.studies.connection.network.connections.spectral import bounded
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class Gated(Connection):
    """`c` [h, n, n] ~ N(0, 1 / (2 (n - 1))), `W_a`, `W_b` [d, d]; both parts start at one size.

    `config.largest` bounds c, part by part; what the input adds is not bounded.
    """

    is_blind_to_itself = False
    is_linear = False
    is_bounded = True

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        if d_model % config.n_heads:
            raise ConfigError(
                f"d_model must be a multiple of n_heads, got {d_model} and {config.n_heads}."
            )
        others = max(1, n_slots - 1)
        c = torch.randn(config.n_heads, n_slots, n_slots) * (2 * others) ** -0.5
        self.c = nn.Parameter(c * is_pair(n_slots, c))
        # A gate holds S_i, which it is multiplied with: the sum over i has a part in which all
        # agree, of (n - 1) / d times the size of the rest.
        variance = 1 / (2 * others * (1 + others / d_model))
        # A gate has the variance of an entry of a query times that of one of a key.
        std = variance**0.25 * d_model**-0.5
        self.W_a = nn.Parameter(std * torch.randn(d_model, d_model))
        self.W_b = nn.Parameter(std * torch.randn(d_model, d_model))

    def operator(self) -> Operator:
        graphs, pairs = self.graphs(), is_pair(self.n_slots, self.c)
        scale = (self.d_model // self.config.n_heads) ** -0.5

        def influence(slots: Tensor) -> Tensor:
            sources, targets = self._heads(slots @ self.W_a), self._heads(slots @ self.W_b)
            gates = (sources @ targets.mT) * scale * pairs
            return mix(graphs + gates, self._heads(slots)).transpose(1, 2).flatten(2)

        return influence

    def strengths(self) -> Float[Tensor, "n n"]:
        """Of the static graph; the root of the mean square over heads, |c_ij| for one."""
        return safe_sqrt(self.graphs().square().mean(0))

    def graphs(self) -> Float[Tensor, "h n n"]:
        return bounded(self.c * is_pair(self.n_slots, self.c), self.config.largest)

    def _heads(self, slots: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n part"]:
        return slots.unflatten(-1, (self.config.n_heads, -1)).transpose(1, 2)
