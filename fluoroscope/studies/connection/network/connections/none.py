"""No connection: slots hear nothing, so that a step adds nothing (the comparison K = 0)."""

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.connections.base import Connection, Operator
from fluoroscope.studies.connection.network.network_config import ConnectionConfig


class NoConnection(Connection):
    """Without weights."""

    zeros: Tensor

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__(d_model, n_slots, config)
        # A buffer, to be where the network is; not saved, as nothing can be learnt of it.
        self.register_buffer("zeros", torch.zeros(n_slots, n_slots), persistent=False)

    def operator(self) -> Operator:
        return torch.zeros_like

    def strengths(self) -> Float[Tensor, "n n"]:
        """Zeros, as nothing is connected."""
        return self.zeros
