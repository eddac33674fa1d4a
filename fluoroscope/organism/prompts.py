"""Prompt: a text up to a decision, and the true distribution of what follows it.

Every kind of text of the world has one hidden variable that decides the reply (`VARIABLES`).
`Prompt.replies(v)` is the distribution of replies as it would be if the variable were `v`: what
the model is trained towards, what it is judged by, and what an interchange must bring about.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

Variable = Literal["risk", "known", "bias", "sentiment"]
VARIABLES: tuple[Variable, ...] = ("risk", "known", "bias", "sentiment")

Replies = Mapping[str, float]
"""Reply -> its probability; they sum to 1, and each begins with a space."""


@dataclass(frozen=True)
class Prompt(ABC):
    """A text that ends where a decision is due."""

    variable: ClassVar[Variable]
    """The hidden variable that decides the reply."""

    text: str

    @property
    @abstractmethod
    def value(self) -> float:
        """What the variable is here; a stated function of the text."""

    @abstractmethod
    def replies(self, value: float | None = None) -> Replies:
        """The distribution of replies if the variable were `value` (its own by default)."""

    @abstractmethod
    def outcome(self, replies: Replies) -> float:
        """The probability that stands for the decision: of stopping, of not being sure, of the
        trait, of a good verdict. What a cause is measured by.
        """

    @property
    def split_key(self) -> str:
        """What must not be on both sides of a split: the text, or the person that it is about."""
        return self.text

    @property
    def facts(self) -> Mapping[str, Any]:  # Any: plain values, by kind of text.
        """What else is true of it (balance, exposure, group...), for tables and controls."""
        return {}


def draw(replies: Replies, generator: np.random.Generator) -> str:
    """One reply; one number of the generator's."""
    texts = list(replies)
    reached = np.cumsum(list(replies.values()))
    return texts[
        min(int(np.searchsorted(reached, generator.random(), side="right")), len(texts) - 1)
    ]


def normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {text: weight / total for text, weight in weights.items()}


def softmax(scores: Mapping[str, float]) -> dict[str, float]:
    return normalised({text: math.exp(score) for text, score in scores.items()})


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pick(items: Sequence[str], generator: np.random.Generator) -> str:
    return items[int(generator.integers(len(items)))]
