"""The organism's texts as labelled sets: there is no file to read, and every label is true.

`REVIEWS`: is a review of three judgements positive, that is, do two or three of them praise? A
word alone does not tell, as a quarter of the judgements are negated. Reviews of the same three
things are a group. `INFERENCE`: a review and a judgement; the review says as much (entailment),
says the opposite of the same thing (contradiction), or does not speak of it (neutral), mostly in
other words than the judgement's. Of each review there is one pair of each class, so that neither
text by itself tells anything.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.data.labelled.base import GatheredExamples, LabelledSet, check_classes
from fluoroscope.data.labelled.example import Example, Splitting, Task, example_id, group_of
from fluoroscope.data.labelled.splitting import Found, split_examples
from fluoroscope.organism.prompts import pick
from fluoroscope.organism.reviews import Clause
from fluoroscope.organism.world import World

PURPOSE = "labelled"
_APART = 16
"""Reviews that are looked through for words of one: enough to name three other things."""


@dataclass(frozen=True)
class OrganismSet(LabelledSet):
    """Its sides are drawn by group, whichever splitting is asked for."""

    n: int
    """Reviews that are drawn; the same one twice is one."""

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
        examples, left_out, origins = split_examples(found, "sound", seed)
        check_classes(examples, self.classes, self.name)
        return GatheredExamples(self.name, tuple(examples), tuple(left_out), self.classes, origins)


@dataclass(frozen=True)
class ReviewSet(OrganismSet):
    n: int = 4000
    name = "organism_reviews"
    task: Task = "classification"
    classes = ("negative", "positive")

    def examples(self) -> Iterator[Example]:
        world = World()
        drawn = {one.text: one for one in (world.review(PURPOSE, i) for i in range(self.n))}
        for text, review in drawn.items():
            things = " ".join(sorted(clause.aspect for clause in review.clauses))
            yield Example(
                id=example_id(self.name, text, None),
                text=text,
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
        world = World()
        for index in range(self.n):
            review = world.review(PURPOSE, index)
            said = {clause.aspect: clause.praises for clause in review.clauses}
            luck = stream(world.seed, PURPOSE, "inference", index)
            stated = self._stated(world, index, said, luck)
            first, _, _ = review.text.partition("\n")
            for label, name in enumerate(self.classes):
                pair = f"{stated[name]}."
                yield Example(
                    id=example_id(self.name, first, pair),
                    text=first,
                    pair=pair,
                    label=label,
                    split="train",
                    group_id=group_of(first),
                )

    def _stated(
        self, world: World, index: int, said: Mapping[str, bool], luck: np.random.Generator
    ) -> dict[str, Clause]:
        """Class -> a judgement that is so related to what is said, in words of other reviews."""
        others = (world.review(f"{PURPOSE} pair", i) for i in itertools.count(_APART * index))
        clauses = (clause for other in others for clause in other.clauses)
        neutral = next(clause for clause in clauses if clause.aspect not in said)
        found = {"neutral": neutral}
        for name, is_true in (("entailment", True), ("contradiction", False)):
            aspect = pick(list(said), luck)
            clause = next(clauses)._replace(aspect=aspect)
            is_so = clause.praises == said[aspect]
            found[name] = clause if is_so == is_true else clause.flipped()
        return found


REVIEWS = ReviewSet()
INFERENCE = InferenceSet()
