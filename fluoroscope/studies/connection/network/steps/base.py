"""What every form of step is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.network_config import NetworkConfig

Hears = Callable[[Tensor], Tensor]
"""What each slot hears of the others: `[b, m, d]` to `[b, m, d]`, the same map in every step."""


class Moved(NamedTuple):
    """States after a step."""

    states: Float[Tensor, "b m d"]

    update: Float[Tensor, "b m d"]
    """What was added to each slot for what it heard: `U_t`, whose size the plan stops by."""


class Step(nn.Module, ABC):
    most: int | None
    """Steps that can be taken; None where the same step can be taken as often as one likes."""

    @abstractmethod
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heard = nn.Identity()
        """What was heard goes through it as it is added to the states, for hooks."""

    @abstractmethod
    def forward(
        self,
        states: Float[Tensor, "b m d"],
        first: Float[Tensor, "b m d"],
        hears: Hears,
        index: int,
    ) -> Moved:
        """Step number `index`, counted from 0; `first` are the states that thinking began with."""
