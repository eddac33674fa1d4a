"""Reviews whose words decide their verdict: three judgements, of which two or three agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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


@dataclass(frozen=True)
class ReviewPrompt(Prompt):
    variable: ClassVar[Variable] = "sentiment"
    judgements: tuple[bool, bool, bool]
    """Whether each praises, negation taken into account."""

    n_negated: int

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
        return {"n_praised": sum(self.judgements), "n_negated": self.n_negated}


def draw_review_prompt(generator: np.random.Generator) -> ReviewPrompt:
    aspects = generator.permutation(len(_ASPECTS))[:3]
    clauses, judgements, n_negated = [], [], 0
    for aspect in aspects:
        praises, negated = generator.random() < 0.5, generator.random() < _NEGATED
        word = pick(_WORDS[int(praises == negated)], generator)
        clauses.append(f"the {_ASPECTS[aspect]} was {'not ' if negated else ''}{word}")
        judgements.append(bool(praises))
        n_negated += int(negated)
    first, second, third = clauses
    text = f"Review: {first}, {second}, and {third}.\nVerdict:"
    a, b, c = judgements
    return ReviewPrompt(text, (a, b, c), n_negated)
