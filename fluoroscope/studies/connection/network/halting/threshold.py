"""The plan's: stops where no slot of the text got an update longer than a threshold.

The length is absolute, and grows with the width and the weights of the network. As initialised,
the longest update of a slot in the plan's base network (128 slots of width 256, rank 32) is 6.6 in
the first step and 91 to 98 in those after it, and 3.2 and then 25 to 26 with 32 slots of width 64
and rank 8. The plan's thresholds are 0.001 to 0.1: it never stops.
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
