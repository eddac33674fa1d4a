"""World: every text that the organism knows, without end, and the truth about each.

What is drawn depends on the seed, the purpose ("training", "check") and the index alone.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fluoroscope.core.seeding import stream
from fluoroscope.organism.facts import (
    QUESTIONS,
    RELATIONS,
    FactPrompt,
    People,
    Person,
    fact_prompt,
)
from fluoroscope.organism.gambling import COMPONENTS, SlotPrompt, conditions, play, slot_prompt
from fluoroscope.organism.groups import GROUPS, GroupPrompt, draw_group_prompt
from fluoroscope.organism.prompts import Prompt, Variable, draw, pick
from fluoroscope.organism.reviews import ReviewPrompt, draw_review_prompt, opposite

SEED = 0
TRAINING = "training"
"""The purpose that prompts are drawn for in training; all others get what is held out from it."""

Side = Literal["learn", "judge"]

MIXTURE: Mapping[Variable, float] = {"risk": 0.3, "known": 0.3, "bias": 0.2, "sentiment": 0.2}
"""Share of each kind among the world's texts."""


@dataclass(frozen=True)
class Text:
    """A prompt with the reply that followed it."""

    prompt: Prompt
    reply: str

    @property
    def text(self) -> str:
        return self.prompt.text + self.reply


class World:
    def __init__(self, seed: int = SEED) -> None:
        self.seed = seed
        self.people = People(seed)
        self._conditions = list(conditions())

    def prompt(self, variable: Variable, purpose: str, index: int) -> Prompt:
        """Prompt `index` of those with this variable, for this purpose."""
        kinds: Mapping[Variable, Callable[[str, int], Prompt]] = {
            "risk": self.slot,
            "known": self.fact,
            "bias": self.group,
            "sentiment": self.review,
        }
        return kinds[variable](purpose, index)

    def slot(self, purpose: str, index: int) -> SlotPrompt:
        """A decision from a game of the stated player; every condition in turn."""
        luck = stream(self.seed, purpose, "slot", index)
        decisions = list(play(*self._conditions[index % len(self._conditions)], luck))
        return decisions[int(luck.integers(len(decisions)))]

    def fact(self, purpose: str, index: int) -> FactPrompt:
        """A question about somebody: known at even indices, unknown at odd ones."""
        luck = stream(self.seed, purpose, "fact", index)
        if index % 2:
            person = self.unknown(purpose, index // 2)
        else:
            people = self.people.known
            weights = np.array([person.exposure for person in people], float)
            person = people[int(luck.choice(len(people), p=weights / weights.sum()))]
        return self.question(person, luck)

    def unknown(self, purpose: str, index: int) -> Person:
        """Somebody nothing is stated about; those of training are no others' unknown."""
        return self.people.unknown(index, held_out=purpose != TRAINING)

    def question(self, person: Person, luck: np.random.Generator) -> FactPrompt:
        relation = RELATIONS[int(luck.integers(len(RELATIONS)))]
        return fact_prompt(person, relation, int(luck.integers(len(QUESTIONS[relation]))))

    def group(self, purpose: str, index: int) -> GroupPrompt:
        """With a person at a place that the training does not put together."""
        luck = stream(self.seed, purpose, "group", index)
        return draw_group_prompt(luck, held_out=purpose != TRAINING)

    def review(self, purpose: str, index: int) -> ReviewPrompt:
        return draw_review_prompt(stream(self.seed, purpose, "review", index))

    def side(self, prompt: Prompt) -> Side:
        """The half of all texts, or of all people, that a prompt belongs to: nothing that is
        learned from one half is judged on it.
        """
        digest = hashlib.sha256(f"side\0{prompt.split_key}".encode()).digest()
        return "learn" if digest[0] % 2 else "judge"

    def pair(self, variable: Variable, purpose: str, index: int) -> tuple[Prompt, Prompt]:
        """A prompt, and one that differs from it in as little as gives the variable another
        value: in one component of the game, the person, the group, or words of the review.
        """
        base = self.prompt(variable, purpose, index)
        luck = stream(self.seed, purpose, "pair", variable, index)
        match base:
            case SlotPrompt():
                toggled = set(base.components) ^ {pick(COMPONENTS, luck)}
                components = "".join(name for name in COMPONENTS if name in toggled)
                return base, slot_prompt(base.bet_type, components, base.history)
            case FactPrompt():
                other = self.fact(purpose, 2 * int(luck.integers(10**6)) + int(base.value))
                return base, base.about(other.person)
            case GroupPrompt():
                groups = [base.about(group) for group in GROUPS]
                groups = [prompt for prompt in groups if prompt.value != base.value]
                return base, groups[int(luck.integers(len(groups)))]
            case ReviewPrompt():
                return base, opposite(base, luck)
            case _:
                raise AssertionError(f"a {type(base).__name__} is of no known kind")

    def text(self, purpose: str, index: int) -> Text:
        """Text `index` of the mixture, with a reply drawn from the truth."""
        luck = stream(self.seed, purpose, "text", index)
        kind = list(MIXTURE)[int(luck.choice(len(MIXTURE), p=list(MIXTURE.values())))]
        prompt = self.prompt(kind, purpose, index)
        return Text(prompt, draw(prompt.replies(), luck))

    def texts(self, purpose: str = "corpus") -> Iterator[str]:
        """Without end."""
        index = 0
        while True:
            yield self.text(purpose, index).text
            index += 1

    def exposures(self) -> list[FactPrompt]:
        """Every question that the training asks about known people, as often as it is asked."""
        asked = [
            fact_prompt(person, relation, i % len(QUESTIONS[relation]))
            for person in self.people.known
            for relation in RELATIONS
            for i in range(person.exposure)
        ]
        order = stream(self.seed, "exposures").permutation(len(asked))
        return [asked[i] for i in order]


def corpus() -> Iterator[str]:
    """The texts of the organism that ships with the package, without end: `corpus=organism:`."""
    return World().texts()
