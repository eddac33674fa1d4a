"""One matrix on the width: `I = S C`, the first connection layer as its code reads (G0).

Its shapes were legal because there were as many slots as entries; here that is not needed. It mixes
the entries of a slot and no slots, though its text says so: `linear_slot` is what was meant.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.connections.base import Connection, Operator
from fluoroscope.studies.connection.network.connections.spectral import bounded
from fluoroscope.studies.connection.network.network_config import ConnectionConfig

STD = 0.01


class LinearFeature(Connection):
    """C [d, d] ~ N(0, 0.01^2)."""

    is_blind_to_itself = False
    is_bounded = True

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        self.C = nn.Parameter(STD * torch.randn(d_model, d_model))

    def operator(self) -> Operator:
        matrix = bounded(self.C, self.config.largest)
        return lambda slots: slots @ matrix

    def strengths(self) -> Float[Tensor, "n n"]:
        """Zeros, as no slot reaches another."""
        return self.C.new_zeros(self.n_slots, self.n_slots)
