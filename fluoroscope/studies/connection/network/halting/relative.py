"""Stops where the states changed by less than a share of their own length.

    norm(S_t - S_(t-1)) < threshold * norm(S_(t-1)),    norms of all slots together

Unlike the plan's rule it means the same in networks of every width and scale.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.halting.base import Halt, Halting
from fluoroscope.studies.connection.network.steps.base import Moved


class Relative(Halting):
    @torch.no_grad()
    def forward(self, moved: Moved, change: Float[Tensor, " b"]) -> Halt:
        return Halt(change < self.threshold)
