"""Stories like those of bAbI's tasks 1 to 3 (Weston et al. 2015, arXiv:1502.05698).

Persons go to places, take things there and drop them; the question is where a person is (one fact
tells it), where a thing is (two: who carried it last, and where to), or where it was before (three:
who carried it away, to where, and from where). What each fact tells is a hop. Stories are ours, and
are not bAbI's own; places are the answer in turn.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.questions.made import DrawnSet, MadeDraft

PEOPLE = ("Mary", "John", "Sandra", "Daniel")
PLACES = ("kitchen", "garden", "office", "bathroom", "hallway", "bedroom")
THINGS = ("football", "milk", "apple")


class Stay(NamedTuple):
    """Of a thing, at a place that somebody brought it to, or took it from."""

    place: str
    by: str


@dataclass
class Scene:
    """What a story has said so far."""

    sentences: list[str] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)
    """Person -> place."""

    holder: dict[str, str] = field(default_factory=dict)
    """Thing that is carried -> person."""

    last_holder: dict[str, str] = field(default_factory=dict)
    stays: dict[str, list[Stay]] = field(default_factory=dict)
    """Thing -> the places that it was at, one after the other."""

    def go(self, person: str, place: str) -> None:
        self.where[person] = place
        self.sentences.append(f"{person} went to the {place}.")
        for thing in sorted(self.holder):
            if self.holder[thing] == person:
                self._stay(thing, person)

    def take(self, person: str, thing: str) -> None:
        self.holder[thing] = self.last_holder[thing] = person
        self.sentences.append(f"{person} took the {thing}.")
        self._stay(thing, person)

    def drop(self, person: str, thing: str) -> None:
        del self.holder[thing]
        self.sentences.append(f"{person} dropped the {thing}.")

    def at_hand(self, person: str) -> list[str]:
        """Things that somebody could take: not carried, and here or never seen."""
        here = self.where.get(person)
        return [
            thing
            for thing in THINGS
            if here and thing not in self.holder
            if thing not in self.stays or self.stays[thing][-1].place == here
        ]

    def _stay(self, thing: str, person: str) -> None:
        stays = self.stays.setdefault(thing, [])
        if not stays or stays[-1].place != self.where[person]:
            stays.append(Stay(self.where[person], person))


def tell(luck: np.random.Generator, n_sentences: int) -> Scene:
    """A story; about half of its sentences are of somebody who goes."""
    scene = Scene()
    while len(scene.sentences) < n_sentences:
        person = PEOPLE[luck.integers(len(PEOPLE))]
        carried = [thing for thing in THINGS if scene.holder.get(thing) == person]
        near = scene.at_hand(person)
        act = luck.random()
        if act < 0.35 and near:
            scene.take(person, near[luck.integers(len(near))])
        elif 0.35 <= act < 0.5 and carried:
            scene.drop(person, carried[luck.integers(len(carried))])
        else:
            others = [place for place in PLACES if place != scene.where.get(person)]
            scene.go(person, others[luck.integers(len(others))])
    return scene


class Askable(NamedTuple):
    words: str
    hops: tuple[str, ...]


def askable(scene: Scene, n_facts: int) -> Iterator[Askable]:
    """All questions that the story answers by so many facts."""
    if n_facts == 1:
        for person, place in sorted(scene.where.items()):
            yield Askable(f"Where is {person}?", (place,))
        return
    for thing, stays in sorted(scene.stays.items()):
        place, by = stays[-1]
        if n_facts == 2:
            yield Askable(f"Where is the {thing}?", (scene.last_holder[thing], place))
        # A place that it was at twice is before several others.
        elif [one.place for one in stays].count(place) == 1 and len(stays) > 1:
            before = stays[-2].place
            yield Askable(f"Where was the {thing} before the {place}?", (by, place, before))


@dataclass(frozen=True, kw_only=True)
class StorySet(DrawnSet):
    facts: tuple[int, ...]
    """That questions take, which is their depth."""

    @property
    def choices(self) -> tuple[str, ...]:
        return PLACES

    def depths(self, split: Split) -> Sequence[int]:
        return self.facts

    def draft(self, luck: np.random.Generator, depth: int, number: int) -> MadeDraft | None:
        config = self.generated.story
        scene = tell(luck, int(luck.integers(config.shortest, config.longest + 1)))
        found = list(askable(scene, depth))
        if not found:
            return None
        words, hops = found[luck.integers(len(found))]
        # Places are all alike: two of them change names where another one's turn it is.
        wanted, answer = PLACES[number % len(PLACES)], hops[-1]
        renamed = {wanted: answer, answer: wanted}
        story, words, *hops = (
            re.sub(r"\w+", lambda word: renamed.get(word[0], word[0]), text)
            for text in (" ".join(scene.sentences), words, *hops)
        )
        return MadeDraft(story, words, f"story: {story} Question: {words}", tuple(hops))


ONE_FACT = StorySet(name="babi1", facts=(1,))
TWO_FACTS = StorySet(name="babi2", facts=(2,))
THREE_FACTS = StorySet(name="babi3", facts=(3,))
MIXED = StorySet(name="babi", facts=(1, 2, 3))
