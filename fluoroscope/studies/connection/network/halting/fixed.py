"""All steps, of every text."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.halting.base import Halt, Halting
from fluoroscope.studies.connection.network.steps.base import Moved


class Fixed(Halting):
    can_stop: ClassVar[bool] = False

    def forward(self, moved: Moved, change: Float[Tensor, " b"]) -> Halt:
        return Halt(torch.zeros_like(change, dtype=torch.bool))
