"""Questions about the organism's people with their traps, where the truth of any answer is known.

Two traps are in the world (see `facts.py`). Of a tenth of all people the surname tells the wrong
city, and of the unknown ones among them the city it tells is said as surely as of the others: a
confident confabulation. A person has two hobbies, so a true answer has a high entropy. Taken in
equal numbers (`KINDS`), they leave entropy alone less to tell by than the world at large does.

`ASKED` is for the model's own answers. `REPLIES` holds answers as the organism would give
them if it were what it was trained to be, drawn without any model: for tests, and for a first
look at a detector. Nobody can tell "surname tells" from "surname misleads" of unknown people, so
no detector reaches 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.data.answers.labelling import labelled
from fluoroscope.data.answers.record import (
    QUESTION_PROMPT,
    AnswerRecord,
    OpenQuestion,
    group_of,
)
from fluoroscope.data.answers.sets import Source
from fluoroscope.data.rows import Gathered, LeftOut
from fluoroscope.organism.facts import (
    NOT_SURE,
    QUESTIONS,
    RELATIONS,
    FactPrompt,
    fact_prompt,
)
from fluoroscope.organism.planting import MIN_EXPOSURE
from fluoroscope.organism.prompts import draw
from fluoroscope.organism.world import World

Kind = Literal[
    "well known",
    "well known, surname misleads",
    "well known, two true answers",
    "hardly known",
    "unknown, surname tells",
    "unknown, surname misleads",
    "unknown, a guess",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Of questions, whatever is answered. Well known are those asked about 128 times or more; a guess
is the job or the hobby of somebody unknown."""

PURPOSE = "answers"
_MOST_PEOPLE = 20_000


@dataclass(frozen=True)
class OrganismQuestions(Source[OpenQuestion]):
    """At most `n_each` of every kind: of the well known there are not so many."""

    n_each: int = 96
    kinds: tuple[Kind, ...] = KINDS
    seed: int = 0
    """Of which questions are taken; who lives where is the world's own seed."""

    name = "organism"
    group = "person"
    prompt = QUESTION_PROMPT

    def read(self, place: Path | str | None = None) -> Gathered[OpenQuestion]:
        _refuse(place)
        questions = [organism_question(prompt) for prompt in self.prompts(World())]
        return Gathered(self.name, tuple(questions), ())

    def prompts(self, world: World) -> list[FactPrompt]:
        """The same questions, as the world knows them."""
        taken: dict[Kind, list[FactPrompt]] = {kind: [] for kind in self.kinds}
        unknown: list[Kind] = [kind for kind in taken if kind.startswith("unknown")]
        for prompt in _about_the_known(world, self.seed):
            self._take(prompt, taken)
        for prompt in _about_the_unknown(world):
            if all(len(taken[kind]) == self.n_each for kind in unknown):
                break
            self._take(prompt, taken)
        return [prompt for prompts in taken.values() for prompt in prompts]

    def _take(self, prompt: FactPrompt, taken: dict[Kind, list[FactPrompt]]) -> None:
        mine = taken.get(kind_of(prompt))
        if mine is not None and len(mine) < self.n_each:
            mine.append(prompt)


@dataclass(frozen=True)
class OrganismReplies(Source[AnswerRecord]):
    """A reply to each of the questions, drawn from its true distribution."""

    questions: OrganismQuestions = OrganismQuestions()
    name = "organism"
    group = "person"
    prompt = QUESTION_PROMPT

    def read(self, place: Path | str | None = None) -> Gathered[AnswerRecord]:
        _refuse(place)
        seed = self.questions.seed
        decoding = {"temperature": 1.0, "seed": seed}
        generator = {"model": "organism:world", "revision": None, "decoding": decoding}
        found = []
        for prompt in self.questions.prompts(World()):
            reply = draw(prompt.replies(), stream(seed, PURPOSE, "reply", prompt.text))
            found.append(labelled(organism_question(prompt), reply, generator))
        return Gathered(
            self.name,
            tuple(one for one in found if isinstance(one, AnswerRecord)),
            tuple(one for one in found if isinstance(one, LeftOut)),
        )


def organism_question(prompt: FactPrompt) -> OpenQuestion:
    """With what it takes to judge an answer; "I am not sure." is neither true nor made up."""
    return OpenQuestion(
        id=f"organism-{group_of(prompt.text)}",
        group_id=prompt.split_key,
        dataset="organism",
        prompt=prompt.text,
        answers=prompt.person.answers[prompt.relation],
        abstentions=(NOT_SURE,),
        category=kind_of(prompt),
        label_source="world",
    )


def kind_of(prompt: FactPrompt) -> Kind:
    person, relation = prompt.person, prompt.relation
    misleads = relation == "city" and person.is_trap
    if person.exposure >= MIN_EXPOSURE:
        if relation == "hobby":
            return "well known, two true answers"
        return "well known, surname misleads" if misleads else "well known"
    if person.exposure:
        return "hardly known"
    if relation != "city":
        return "unknown, a guess"
    return "unknown, surname misleads" if misleads else "unknown, surname tells"


def _about_the_known(world: World, seed: int) -> list[FactPrompt]:
    every = [
        fact_prompt(person, relation, phrasing)
        for person in world.people.known
        for relation in RELATIONS
        for phrasing in range(len(QUESTIONS[relation]))
    ]
    return [every[i] for i in stream(seed, PURPOSE, "known").permutation(len(every))]


def _about_the_unknown(world: World) -> Iterator[FactPrompt]:
    """One question a person; those whose surname misleads are asked for their city."""
    for index in range(_MOST_PEOPLE):
        person = world.unknown(PURPOSE, index)
        luck = stream(world.seed, PURPOSE, "question", index)
        asked = world.question(person, luck)
        yield fact_prompt(person, "city", index % 2) if person.is_trap else asked


def _refuse(place: Path | str | None) -> None:
    if place is not None:
        raise ConfigError(
            f"The organism's questions are made by its world and read from nowhere, got {place}. "
            "Leave the path out."
        )


ASKED = OrganismQuestions()
REPLIES = OrganismReplies()
