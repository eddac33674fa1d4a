"""The plan's step: `S_t = LayerNorm_t(S + ReLU(heard))`.

What is heard is the same map in every step, but each step has a norm of its own, so that no more
steps can be taken than were made. Updates are never negative, and the norm brings every slot back
to a length of about `sqrt(d)`: an update of nearly 0, which the plan waits for, is only there where
all that is heard is negative.
"""

from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.steps.base import Hears, Moved, Step


class ReluNorm(Step):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.most = config.max_steps
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(self.most))

    def forward(
        self,
        states: Float[Tensor, "b m d"],
        first: Float[Tensor, "b m d"],
        hears: Hears,
        index: int,
    ) -> Moved:
        update = self.heard(hears(states).relu())
        return Moved(self.norms[index](states + update), update)
