"""A head on the mean of the states; stops where its sigmoid is above 1/2.

What it is trained by is in `losses`: whether the answer is right by now (`halting_loss`), or what
steps cost. While it is trained, think a given number of steps (`n_steps`), or no step behind the
one where it would stop is ever supervised.
"""

from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.halting.base import Halt, Halting
from fluoroscope.studies.connection.network.network_config import HaltingConfig
from fluoroscope.studies.connection.network.steps.base import Moved

FIRST_LOGIT = -3.0
"""Heads that begin by stopping half of the time end with two steps or so (arXiv:2604.21999)."""


class Learned(Halting):
    def __init__(self, d_model: int, config: HaltingConfig) -> None:
        super().__init__(d_model, config)
        self.head = nn.Linear(d_model, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, FIRST_LOGIT)

    def forward(self, moved: Moved, change: Float[Tensor, " b"]) -> Halt:
        logits = self.head(moved.states.mean(dim=1))[:, 0]
        return Halt(logits > 0, logits)
