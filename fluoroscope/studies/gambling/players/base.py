"""What every player does: it answers what games ask, until all of them are over."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from fluoroscope.studies.gambling.episodes import Conversation, Episode

OnFinish = Callable[[int, int], None]
"""Gets how many games are over, and of how many."""


class Player(ABC):
    @abstractmethod
    def play(
        self, conversations: Sequence[Conversation], on_finish: OnFinish | None = None
    ) -> list[Episode]:
        """Every game to its end, in the order in which they were given."""
