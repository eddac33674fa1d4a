"""The plan's step: `S_t = LayerNorm_t(S + ReLU(heard))`.

What is heard is the same map in every step, but each step has a norm of its own, so that no more
steps can be taken than were made. Updates are never negative, and the norm brings every slot back
to a length of about `sqrt(d)`: an update of nearly 0, which the plan waits for, is only there where
all that is heard is negative.
"""

from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.steps.base import Hears, Moved, Step


class ReluNorm(Step):
    def __init__(self, d_model: int, max_steps: int, dropout: float) -> None:
        super().__init__(d_model, max_steps, dropout)
        self.most = max_steps
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(max_steps))

    def forward(
        self,
        states: Float[Tensor, "b m d"],
        first: Float[Tensor, "b m d"],
        hears: Hears,
        index: int,
    ) -> Moved:
        update = self.heard(hears(states).relu())
        return Moved(self.norms[index](states + update), update)
