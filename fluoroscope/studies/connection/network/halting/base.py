"""What every form of halting is."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.network_config import HaltingConfig
from fluoroscope.studies.connection.network.steps.base import Moved


class Halt(NamedTuple):
    """What was decided after a step."""

    stops: Bool[Tensor, " b"]

    logits: Float[Tensor, " b"] | None = None
    """Of stopping, with gradients, where that is learnt."""


class Halting(nn.Module, ABC):
    """Made of `(d_model, config)`."""

    can_stop: ClassVar[bool] = True

    def __init__(self, d_model: int, config: HaltingConfig) -> None:
        super().__init__()
        self.threshold = config.threshold

    @abstractmethod
    def forward(self, moved: Moved, change: Float[Tensor, " b"]) -> Halt:
        """After the step that `moved` the states; `change` is as in `Thought.changes`.

        What it says of texts that have stopped already is not asked.
        """
