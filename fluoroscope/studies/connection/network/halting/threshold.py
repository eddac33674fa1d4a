"""The plan's: stops where no slot of the text got an update longer than a threshold.

The length is absolute, and grows with the width and the weights of the network. As initialised,
updates of the plan's base network are 5 to 80 long, its thresholds 0.001 to 0.1: it never stops.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.halting.base import Halt, Halting
from fluoroscope.studies.connection.network.steps.base import Moved


class Threshold(Halting):
    @torch.no_grad()
    def forward(self, moved: Moved, change: Float[Tensor, " b"]) -> Halt:
        longest = torch.linalg.vector_norm(moved.update, dim=-1).amax(dim=-1)
        return Halt(longest <= self.threshold)
