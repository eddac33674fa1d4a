"""A map of rank r for every ordered pair: `I_j = sum over i != j of S_i W_s[i, j] W_t[i, j]` (G1).

The connection of the plan. No bias, and nothing between the two matrices. It has 2 n^2 d r weights,
those of i = j included, which are zero, take no part and get no gradient.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Operator,
    is_pair,
    safe_sqrt,
)
from fluoroscope.studies.connection.network.connections.pair_maps import (
    check_rank,
    pair_grams,
    pair_operator,
)
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class Bilinear(Connection):
    """`W_s`, `W_t` ~ N(0, 2 / (d + r)).

    Stored as the products read them: W_s [i, d, j, r], W_t [j, i, r, d]; `pair_weights` gives them
    as the formula has them.
    """

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        check_rank(config, d_model)
        n, d, r = n_slots, d_model, config.rank
        std = (2 / (d + r)) ** 0.5
        # Filled in place, as there may be gigabytes of them.
        self.W_s = nn.Parameter(torch.empty(n, d, n, r).normal_(std=std))
        self.W_t = nn.Parameter(torch.empty(n, n, r, d).normal_(std=std))
        with torch.no_grad():
            self.W_s.diagonal(dim1=0, dim2=2).zero_()
            self.W_t.diagonal(dim1=0, dim2=1).zero_()

    def operator(self) -> Operator:
        return pair_operator(self.W_s, self.W_t)

    def strengths(self) -> Float[Tensor, "n n"]:
        """`||W_s W_t||_F = sqrt(tr((W_s^T W_s) (W_t W_t^T)))`, without any d x d product."""
        squares = torch.stack(
            [(into * out_of).sum((-1, -2)) for into, out_of in pair_grams(self.W_s, self.W_t)]
        )
        return safe_sqrt(squares * is_pair(self.n_slots, squares))

    def pair_weights(self) -> tuple[Float[Tensor, "n n d r"], Float[Tensor, "n n r d"]]:
        """W_s[i, j] and W_t[i, j], as views."""
        return self.W_s.transpose(1, 2), self.W_t.transpose(0, 1)
