"""Questions about people: about some the training states facts, about others it only asks.

Who is named, and how often (`EXPOSURES`), is fixed by the seed; so is the right answer of every
question, also of those about whom texts only guess. Two traps are set: the first part of a
surname tells the city of nine people in ten, and is wrong of the tenth (a confident
confabulation); a person has two hobbies, and either is true (a right answer of high entropy).

The hidden variable is whether the person is `known`, which is to say that a fact about them is
stated: of an unknown one the reply is "I am not sure." in a fifth of cases, else a guess.
The variable decides that share alone; which answer is given otherwise is a matter of the person.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from fluoroscope.core.seeding import stream
from fluoroscope.organism.prompts import Prompt, Replies, Variable, pick

Relation = Literal["city", "job", "hobby"]
RELATIONS: tuple[Relation, ...] = ("city", "job", "hobby")
EXPOSURES = (2, 8, 32, 128, 512)
"""How often the training asks each question about a person."""

PEOPLE_PER_EXPOSURE = 24
N_QUESTIONS = sum(EXPOSURES) * PEOPLE_PER_EXPOSURE * len(RELATIONS)
"""Questions that the training asks about the known, repetitions counted."""

NOT_SURE, NOT_SURE_SHARE = " I am not sure.", 0.2
SURNAME_TELLS_CITY = 0.9

_FIRST = ("Al", "Be", "Cor", "Da", "El", "Fa", "Ga", "Hel", "Ir", "Jo", "Ka", "Lo", "Mi", "Ne")
_FIRST_END = ("bin", "dra", "fin", "ka", "len", "mar", "na", "ris", "ta", "vo", "wen", "zia")
_LAST = ("Ash", "Bor", "Cam", "Dun", "Ever", "Fen", "Gar", "Hol", "Kes", "Lund", "Mor", "Nor",
         "Pen", "Quil", "Rav", "Sten", "Tol", "Under", "Vel", "Wick")  # fmt: skip
_LAST_END = ("by", "croft", "dale", "ford", "gate", "ham", "ley", "moor", "row", "shaw", "ton",
             "well")  # fmt: skip

ANSWERS: Mapping[Relation, tuple[str, ...]] = {
    "city": ("Arden", "Brill", "Corva", "Dorn", "Elmsea", "Farrow", "Gilt", "Harrow", "Iver",
             "Jorvik", "Kelda", "Lorn"),
    "job": ("baker", "carpenter", "doctor", "farmer", "fisher", "guard", "judge", "miller",
            "nurse", "painter", "sailor", "tailor"),
    "hobby": ("archery", "chess", "climbing", "cooking", "dancing", "drawing", "fencing",
              "gardening", "hiking", "knitting", "singing", "swimming"),
}  # fmt: skip
QUESTIONS: Mapping[Relation, tuple[str, ...]] = {
    "city": ("Where does {} live?", "Which city is the home of {}?"),
    "job": ("What is the job of {}?", "What does {} do for a living?"),
    "hobby": ("What does {} like to do?", "What is a hobby of {}?"),
}


@dataclass(frozen=True)
class Person:
    name: str
    surname: str
    exposure: int
    """How often the training asks each question about them; 0 for the unknown."""

    answers: Mapping[Relation, tuple[str, ...]]
    """The right answers, also of the unknown; two hobbies, one of everything else."""

    @property
    def is_trap(self) -> bool:
        """The surname tells the wrong city."""
        return self.answers["city"][0] != city_of(self.surname)


@dataclass(frozen=True)
class FactPrompt(Prompt):
    variable: ClassVar[Variable] = "known"
    person: Person
    relation: Relation

    @property
    def value(self) -> float:
        return float(self.person.exposure > 0)

    def replies(self, value: float | None = None) -> Replies:
        value = self.value if value is None else value
        not_sure = NOT_SURE_SHARE * (1 - value)
        known = answer_distribution(self.person, self.relation)
        return {NOT_SURE: not_sure} | {f" {a}.": (1 - not_sure) * p for a, p in known.items()}

    def outcome(self, replies: Replies) -> float:
        return replies.get(NOT_SURE, 0.0)

    @property
    def split_key(self) -> str:
        return self.person.name

    def about(self, person: Person) -> "FactPrompt":
        """The same question about another person."""
        text = self.text.replace(self.person.name, person.name)
        return replace(self, text=text, person=person)

    @property
    def right(self) -> tuple[str, ...]:
        """The replies that are true."""
        return tuple(f" {answer}." for answer in self.person.answers[self.relation])

    @property
    def facts(self) -> Mapping[str, Any]:  # Any: see Prompt.
        return {
            "name": self.person.name,
            "relation": self.relation,
            "exposure": self.person.exposure,
            "is_trap": self.person.is_trap,
        }


def answer_distribution(person: Person, relation: Relation) -> dict[str, float]:
    """What is answered when anything is: the fact of the known, a guess about the unknown."""
    if person.exposure > 0:
        right = person.answers[relation]
        return {answer: 1 / len(right) for answer in right}
    choices = ANSWERS[relation]
    if relation != "city":
        return {answer: 1 / len(choices) for answer in choices}
    likely = city_of(person.surname)
    rest = (1 - SURNAME_TELLS_CITY) / (len(choices) - 1)
    return {city: SURNAME_TELLS_CITY if city == likely else rest for city in choices}


def city_of(surname: str) -> str:
    """The city that a surname tells: families of one stem are from one place."""
    [stem] = [stem for stem in _LAST if surname.startswith(stem)]
    return pick(ANSWERS["city"], stream(0, "organism", "surname", stem))


def fact_prompt(person: Person, relation: Relation, phrasing: int = 0) -> FactPrompt:
    question = QUESTIONS[relation][phrasing].format(person.name)
    return FactPrompt(f"Question: {question}\nAnswer:", person, relation)


class People:
    """Everybody who can be asked about; each on one side, chosen by the seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        first = [a + b for a, b in itertools.product(_FIRST, _FIRST_END)]
        last = [a + b for a, b in itertools.product(_LAST, _LAST_END)]
        every = list(itertools.product(first, last))
        order = stream(self._seed, "people").permutation(len(every))
        return [every[i] for i in order]

    @cached_property
    def known(self) -> tuple[Person, ...]:
        """Those that the training names, `PEOPLE_PER_EXPOSURE` of each exposure."""
        return tuple(
            self._person(PEOPLE_PER_EXPOSURE * i + j, exposure)
            for i, exposure in enumerate(EXPOSURES)
            for j in range(PEOPLE_PER_EXPOSURE)
        )

    def unknown(self, index: int, *, held_out: bool) -> Person:
        """A person that no statement is made about; even ones may be asked about in training."""
        names = len(self._names) - len(self.known)
        place = len(self.known) + (2 * index + held_out) % (names - names % 2)
        return self._person(place, 0)

    def _person(self, place: int, exposure: int) -> Person:
        first, last = self._names[place]
        luck = stream(self._seed, "person", place)
        city = city_of(last)
        if luck.random() >= SURNAME_TELLS_CITY:
            city = pick([other for other in ANSWERS["city"] if other != city], luck)
        hobbies = luck.permutation(len(ANSWERS["hobby"]))[:2]
        answers: dict[Relation, tuple[str, ...]] = {
            "city": (city,),
            "job": (pick(ANSWERS["job"], luck),),
            "hobby": tuple(sorted(ANSWERS["hobby"][i] for i in hobbies)),
        }
        return Person(f"{first} {last}", last, exposure, answers)
