"""Reasoner: what reads a text and writes an answer, whatever is in between.

Slot networks and all that they are compared with are one to the trainer, the evaluation and the
planner. A text's own states, steps and logits depend on neither its padding nor its batch mates.
Axes: b texts, s tokens of the text, t tokens of the answer, m states (slots, or tokens), d width,
v tokens of the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluoroscope.studies.connection.network.blocks import DecoderCache

Ids = Int[Tensor, "b s"]
Mask = Bool[Tensor, "b s"]
"""True at tokens."""


class Thought(NamedTuple):
    """What became of a text before an answer is written."""

    states: Sequence[Float[Tensor, "b m d"]]
    """Before the first step and after each; a text that has stopped keeps its states."""

    mask: Bool[Tensor, "b m"]
    """True at states that may be read."""

    n_steps: Int[Tensor, " b"]
    """Steps until each text stopped; 0 where nothing is repeated."""

    changes: Float[Tensor, "steps b"]
    """`norm(S_t - S_(t-1)) / norm(S_(t-1))` of each step, 0 once stopped; without gradients."""

    halt_logits: Float[Tensor, "steps b"] | None = None
    """Of stopping after each step, where that is learnt."""

    routing: Float[Tensor, "b s m"] | None = None
    """What share of itself each token gave to each slot; 0 at padding. Of the last reading."""

    tokens: Float[Tensor, "b s d"] | None = None
    """The text as it was read, with its mask, where what writes the answer needs it too."""

    tokens_mask: Bool[Tensor, "b s"] | None = None


@dataclass
class Writing:
    """Where an answer is that is being written token by token."""

    thought: Thought
    cache: DecoderCache
    n_written: int = 0


class Reasoner(nn.Module, ABC):
    """Of `ids`, padding is where `mask` is False, behind the text, which has a token at least."""

    pad_id: int
    vocab_size: int
    max_source: int
    max_target: int
    max_steps: int
    """0 where nothing is repeated."""

    @abstractmethod
    def think(
        self, ids: Ids, mask: Mask, n_steps: int | Int[Tensor, " b"] | None = None
    ) -> Thought:
        """`n_steps` is how many steps are done, of all texts or of each, whatever halting says;
        None leaves it to halting and `max_steps`.
        """

    @abstractmethod
    def logits(
        self, thought: Thought, target_in: Int[Tensor, "b t"], after: int | None = None
    ) -> Float[Tensor, "b t v"]:
        """Of each token of the answer, given the ones before: `target_in` is `pad_id` and then
        the answer without its last token. `after` takes the states after that step, for
        supervision on the way; None the last.
        """

    @abstractmethod
    def begin(self, thought: Thought) -> Writing:
        """Begins answers to all texts, for `write`."""

    @abstractmethod
    def write(self, writing: Writing, last: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Logits of the next token, after `last` (`pad_id` first), which it remembers; as `logits`
        of the whole, without doing the earlier ones again.
        """
