"""What every form of output is."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from fluoroscope.studies.connection.network.embedding import Embedding
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.reasoner import Thought, Writing


class SlotOutput(nn.Module, ABC):
    """Made of a `NetworkConfig`. `source` is the embedding of the text, which is the network's."""

    @abstractmethod
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        thought: Thought,
        states: Float[Tensor, "b m d"],
        target_in: Int[Tensor, "b t"],
        source: Embedding,
    ) -> Float[Tensor, "b t v"]:
        """As `Reasoner.logits`; `states` are those of the step that was asked for."""

    @abstractmethod
    def write(
        self, writing: Writing, last: Int[Tensor, " b"], source: Embedding
    ) -> Float[Tensor, "b v"]:
        """As `Reasoner.write`, but for the count of what was written."""
