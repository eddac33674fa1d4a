"""The organism's texts as labelled sets: there is no file to read, and every label is true.

`REVIEWS`: is a review of three judgements positive, that is, do two or three of them praise? A
word alone does not tell, as a quarter of the judgements are negated. Reviews of the same three
things are a group. `INFERENCE`: a review and a judgement; the review says as much (entailment),
says the opposite of the same thing (contradiction), or does not speak of it (neutral), mostly in
other words than the judgement's. Of each review there is one pair of each class, so that neither
text by itself tells anything.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.data.labelled.base import GatheredExamples, LabelledSet, check_classes
from fluoroscope.data.labelled.example import Example, Splitting, Task, example_id, group_of
from fluoroscope.data.labelled.splitting import Found, split_examples
from fluoroscope.organism.reviews import Clause, ReviewPrompt, review_prompt
from fluoroscope.organism.world import SEED, World

PURPOSE = "labelled"
_N_REVIEWS = 256
"""Of the world's, whose judgements are put together anew."""


@dataclass(frozen=True)
class OrganismSet(LabelledSet):
    """Its sides are drawn by group, whichever splitting is asked for."""

    n: int
    """Different reviews."""

    needs_place = False

    @abstractmethod
    def examples(self) -> Iterator[Example]:
        """With no side yet."""

    def read(
        self, place: Path | str | None = None, *, seed: int = 0, splitting: Splitting = "sound"
    ) -> GatheredExamples:
        if place:
            raise ConfigError(
                f"{self.name} is made by the organism's world and read from nowhere, got {place}. "
                "Leave the path out."
            )
        found = [Found(self.name, None, example) for example in self.examples()]
        sides = split_examples(found, "sound", seed)
        check_classes(sides.examples, self.classes, self.name)
        return GatheredExamples(
            self.name,
            tuple(sides.examples),
            tuple(sides.left_out),
            self.classes,
            sides.origins,
            self.task,
        )


@dataclass(frozen=True)
class ReviewSet(OrganismSet):
    n: int = 4000
    name = "organism_reviews"
    task: Task = "classification"
    classes = ("negative", "positive")

    def examples(self) -> Iterator[Example]:
        for review in drawn_reviews(self.n):
            things = " ".join(sorted(clause.aspect for clause in review.clauses))
            yield Example(
                id=example_id(self.name, review.text, None),
                text=review.text,
                pair=None,
                label=int(review.value),
                split="train",
                group_id=group_of(things),
            )


@dataclass(frozen=True)
class InferenceSet(OrganismSet):
    n: int = 1200
    name = "organism_inference"
    task: Task = "entailment"
    classes = ("entailment", "neutral", "contradiction")

    def examples(self) -> Iterator[Example]:
        clauses, luck = world_clauses(), stream(SEED, PURPOSE, "inference")
        for review in drawn_reviews(self.n):
            first, _, _ = review.text.partition("\n")
            said = {clause.aspect: clause.praises for clause in review.clauses}
            for label, name in enumerate(self.classes):
                pair = f"{_stated(name, said, clauses, luck)}."
                yield Example(
                    id=example_id(self.name, first, pair),
                    text=first,
                    pair=pair,
                    label=label,
                    split="train",
                    group_id=group_of(first),
                )


@cache
def world_clauses() -> tuple[Clause, ...]:
    """The judgements of some of the world's reviews."""
    world = World(SEED)
    reviews = (world.review(PURPOSE, index) for index in range(_N_REVIEWS))
    return tuple(clause for review in reviews for clause in review.clauses)


def drawn_reviews(n: int) -> list[ReviewPrompt]:
    """`n` reviews, no two the same, each of judgements of three things."""
    clauses, luck = world_clauses(), stream(SEED, PURPOSE, "reviews")
    found: dict[str, ReviewPrompt] = {}
    while len(found) < n:
        first, second, third = (clauses[i] for i in luck.integers(len(clauses), size=3).tolist())
        if len({first.aspect, second.aspect, third.aspect}) == 3:
            review = review_prompt((first, second, third))
            found[review.text] = review
    return list(found.values())


def _stated(
    name: str, said: Mapping[str, bool], clauses: Sequence[Clause], luck: np.random.Generator
) -> Clause:
    """A judgement so related to what is said of things, that is, whether each is praised."""
    while True:
        clause = clauses[int(luck.integers(len(clauses)))]
        if (clause.aspect in said) != (name == "neutral"):
            break
    if name == "neutral" or (clause.praises == said[clause.aspect]) == (name == "entailment"):
        return clause
    return clause.flipped()


REVIEWS = ReviewSet()
INFERENCE = InferenceSet()
