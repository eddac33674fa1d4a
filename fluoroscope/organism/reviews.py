"""Reviews whose words decide their verdict: three judgements, of which two or three agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fluoroscope.organism.prompts import Prompt, Replies, Variable, pick

GOOD, BAD = " positive.", " negative."

_ASPECTS = ("soup", "bread", "room", "bed", "view", "garden", "waiter", "music", "wine", "bath",
            "price", "service")  # fmt: skip
_WORDS = (
    ("good", "great", "lovely", "clean", "fresh", "warm", "perfect", "pleasant"),
    ("bad", "awful", "ugly", "dirty", "stale", "cold", "broken", "dull"),
)
_NEGATED = 0.25


class Clause(NamedTuple):
    """`the soup was not good`"""

    aspect: str
    word: str
    negated: bool

    @property
    def praises(self) -> bool:
        return (self.word in _WORDS[0]) != self.negated

    def flipped(self) -> "Clause":
        """With the word's counterpart, and so the other judgement."""
        own, other = _WORDS if self.word in _WORDS[0] else _WORDS[::-1]
        return self._replace(word=other[own.index(self.word)])

    def __str__(self) -> str:
        return f"the {self.aspect} was {'not ' if self.negated else ''}{self.word}"


@dataclass(frozen=True)
class ReviewPrompt(Prompt):
    variable: ClassVar[Variable] = "sentiment"
    clauses: tuple[Clause, Clause, Clause]

    @property
    def judgements(self) -> tuple[bool, ...]:
        """Whether each praises, negation taken into account."""
        return tuple(clause.praises for clause in self.clauses)

    @property
    def value(self) -> float:
        return float(sum(self.judgements) >= 2)

    def replies(self, value: float | None = None) -> Replies:
        value = self.value if value is None else value
        return {GOOD: value, BAD: 1 - value}

    def outcome(self, replies: Replies) -> float:
        return replies.get(GOOD, 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:  # Any: see Prompt.
        n_negated = sum(clause.negated for clause in self.clauses)
        return {"n_praised": sum(self.judgements), "n_negated": n_negated}


def draw_review_prompt(generator: np.random.Generator) -> ReviewPrompt:
    def drawn(aspect: str) -> Clause:
        praises, negated = generator.random() < 0.5, generator.random() < _NEGATED
        word = pick(_WORDS[int(praises == negated)], generator)
        return Clause(aspect, word, bool(negated))

    first, second, third = (drawn(_ASPECTS[i]) for i in generator.permutation(len(_ASPECTS))[:3])
    return review_prompt((first, second, third))


def review_prompt(clauses: tuple[Clause, Clause, Clause]) -> ReviewPrompt:
    first, second, third = clauses
    text = f"Review: {first}, {second}, and {third}.\nVerdict:"
    return ReviewPrompt(text, clauses)


def opposite(prompt: ReviewPrompt, generator: np.random.Generator) -> ReviewPrompt:
    """The same review with as few words exchanged as turn its verdict."""
    clauses = list(prompt.clauses)
    for place in generator.permutation(len(clauses)).tolist():
        review = review_prompt((clauses[0], clauses[1], clauses[2]))
        if review.value != prompt.value:
            return review
        if clauses[place].praises == bool(prompt.value):
            clauses[place] = clauses[place].flipped()
    return review_prompt((clauses[0], clauses[1], clauses[2]))
