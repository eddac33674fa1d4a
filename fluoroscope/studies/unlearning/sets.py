"""What is to be forgotten and what is to be kept: texts to learn from, and samples to judge on.

Of the organism, people that the seed chooses are to be forgotten and the other well known ones to
be kept. Its world asks for every fact in two forms: one is learnt from, and the other is judged
on, so nothing is judged on a text that something was measured or trained on. Questions about
strangers and the world's other texts are kept as well, for what tells the chosen people from those
that nobody asked to keep is not what tells them from everybody.

Of any two corpora each is split by its documents, and is judged on by tasks that come with it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal, NamedTuple

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.core.seeding import stream
from fluoroscope.data.corpus_config import CorpusConfig, parse_take
from fluoroscope.data.documents import Document, read_documents, split_of, text_id
from fluoroscope.data.tasks.prompts import sample_id
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.organism.answer_records import kind_of
from fluoroscope.organism.facts import (
    ANSWERS,
    QUESTIONS,
    RELATIONS,
    FactPrompt,
    Person,
    fact_prompt,
)
from fluoroscope.organism.planting import MIN_EXPOSURE
from fluoroscope.organism.prompts import draw
from fluoroscope.organism.world import TRAINING, World

Side = Literal["forget", "retain"]
LEARNT_FORM, JUDGED_FORM = 0, 1
"""The forms of a question, as `QUESTIONS` has them."""

PURPOSE = "unlearning"
_HELD_OUT = "unlearning, held out"
_ORGANISM_NOTE = (
    "Every fact is asked for in two forms. The first is learnt from, and is what settings are "
    "chosen on; the second is judged on. The people are the same: a fact cannot be forgotten that "
    "nothing was said of."
)
_TEXTS_NOTE = (
    "Settings are chosen on the texts that were learnt from (and on the validation side of the "
    "task, where there is one), and judged on held-out documents. Only texts say what is forgotten."
)


class Passage(NamedTuple):
    """A text to learn from, or to tell which side it is of."""

    prompt: str
    """What a detector may see before anything is replied; all of the text where nothing is."""

    reply: str
    group: str
    """What the text is about, or the document; passages of one group are alike."""

    alternatives: tuple[str, ...] = ()
    """What could be replied instead, the reply included."""

    form: str = ""
    """Texts of one form are worded alike; empty where nobody says."""

    @property
    def text(self) -> str:
        return self.prompt + self.reply


@dataclass(frozen=True)
class ForgetSets:
    forget: tuple[Passage, ...]
    retain: tuple[Passage, ...]
    """Both to measure latents on, and to fine-tune on."""

    forget_held_out: tuple[Passage, ...]
    retain_held_out: tuple[Passage, ...]
    """To judge detectors on."""

    forget_samples: tuple[Sample, ...] = ()
    retain_samples: tuple[Sample, ...] = ()
    """To judge forgetting and keeping on."""

    forget_validation: tuple[Sample, ...] = ()
    retain_validation: tuple[Sample, ...] = ()
    """To choose settings on."""

    forgotten: tuple[str, ...] = ()
    """Who or what, where it has a name."""

    note: str = ""
    """What is held out from what."""

    def __post_init__(self) -> None:
        if not self.forget or not self.retain:
            raise CorpusError(
                f"Unlearning needs texts to forget and texts to keep, got {len(self.forget)} and "
                f"{len(self.retain)}."
            )
        forget = (*self.forget, *self.forget_held_out)
        retain = (*self.retain, *self.retain_held_out)
        if both := {one.text for one in forget} & {one.text for one in retain}:
            raise CorpusError(
                f"A text is to be forgotten and kept, {min(both)[:80]!r}; take it out of one of "
                f"the two sets ({len(both)} such)."
            )
        if both := {one.group for one in forget} & {one.group for one in retain}:
            raise CorpusError(
                f"{min(both)} is on both sides; whoever is to be forgotten cannot be kept "
                f"({len(both)} such)."
            )
        if not self.forget_held_out or not self.retain_held_out:
            raise CorpusError(
                f"Unlearning is judged on texts that nothing was learnt from, got "
                f"{len(self.forget_held_out)} to forget and {len(self.retain_held_out)} to keep."
            )


def organism_sets(
    n_people: int, seed: int, n_strangers: int = 300, n_other_texts: int = 100
) -> ForgetSets:
    """`n_people` of the well known to be forgotten; `seed` says who."""
    world = World()
    known = [one for one in world.people.known if one.exposure >= MIN_EXPOSURE]
    if not 0 < n_people < len(known):
        raise ConfigError(
            f"The organism knows {len(known)} people well; from 1 to {len(known) - 1} of them can "
            f"be forgotten, got {n_people}."
        )
    order = stream(seed, PURPOSE, "people").permutation(len(known))
    chosen = {int(place) for place in order[:n_people]}
    forget = [one for place, one in enumerate(known) if place in chosen]
    retain = [one for place, one in enumerate(known) if place not in chosen]
    names = {one.name for one in forget}
    return ForgetSets(
        forget=tuple(_asked(forget, LEARNT_FORM)),
        retain=(
            *_asked(retain, LEARNT_FORM),
            *_strangers(world, n_strangers, is_held_out=False),
            *_other_texts(world, n_other_texts, names, TRAINING),
        ),
        forget_held_out=tuple(_asked(forget, JUDGED_FORM)),
        retain_held_out=(
            *_asked(retain, JUDGED_FORM),
            *_strangers(world, n_strangers, is_held_out=True),
            *_other_texts(world, n_other_texts, names, _HELD_OUT),
        ),
        forget_samples=tuple(_samples(forget, JUDGED_FORM)),
        retain_samples=tuple(_samples(retain, JUDGED_FORM)),
        forget_validation=tuple(_samples(forget, LEARNT_FORM)),
        retain_validation=tuple(_samples(retain, LEARNT_FORM)),
        forgotten=tuple(sorted(names)),
        note=_ORGANISM_NOTE,
    )


def text_sets(
    forget: CorpusConfig,
    retain: CorpusConfig,
    forget_samples: Sequence[Sample] = (),
    retain_samples: Sequence[Sample] = (),
    retain_validation: Sequence[Sample] = (),
) -> ForgetSets:
    """Any two corpora that end; documents that are in both are refused."""
    forget_learnt, forget_held_out = _documents(forget)
    retain_learnt, retain_held_out = _documents(retain)
    return ForgetSets(
        forget=forget_learnt,
        retain=retain_learnt,
        forget_held_out=forget_held_out,
        retain_held_out=retain_held_out,
        forget_samples=tuple(forget_samples),
        retain_samples=tuple(retain_samples),
        retain_validation=tuple(retain_validation),
        note=_TEXTS_NOTE,
    )


def chance(samples: Sequence[Sample]) -> float:
    """The mean accuracy of a reply that is drawn evenly from the options."""
    for sample in samples:
        if not sample.options:
            raise ConfigError(
                f"{sample.id!r} has no options, so nobody can tell what chance would score; judge "
                "on a task of choices."
            )
    if not samples:
        raise ConfigError("There is no sample to tell what chance would score on.")
    return sum(len(one.right) / len(one.options) for one in samples) / len(samples)


def _questions(people: Iterable[Person], form: int) -> Iterator[FactPrompt]:
    for person in people:
        for relation in RELATIONS:
            yield fact_prompt(person, relation, form)


def _asked(people: Iterable[Person], form: int) -> Iterator[Passage]:
    """Each question with each of its right answers."""
    for prompt in _questions(people, form):
        alternatives = tuple(f" {answer}." for answer in ANSWERS[prompt.relation])
        for reply in prompt.right:
            yield Passage(prompt.text, reply, prompt.split_key, alternatives, prompt.relation)


def _samples(people: Iterable[Person], form: int) -> Iterator[Sample]:
    for prompt in _questions(people, form):
        options = ANSWERS[prompt.relation]
        yield Sample(
            id=sample_id("organism-facts", prompt.text),
            group_id=prompt.split_key,
            prompt=prompt.text,
            options=options,
            right=tuple(options.index(one) for one in prompt.person.answers[prompt.relation]),
            category=prompt.relation,
            facts={"name": prompt.person.name, "kind": kind_of(prompt)},
        )


def _strangers(world: World, n: int, *, is_held_out: bool) -> Iterator[Passage]:
    """Questions about people of whom little or nothing is known; a person is on one side."""
    form = JUDGED_FORM if is_held_out else LEARNT_FORM
    hardly = [one for one in world.people.known if one.exposure < MIN_EXPOSURE]
    mine = [one for place, one in enumerate(hardly) if place % 2 == is_held_out]
    unknown = (world.people.unknown(index, held_out=is_held_out) for index in count())
    everybody = [*mine, *islice(unknown, max(0, n - len(mine)))][:n]
    for place, person in enumerate(everybody):
        relation = RELATIONS[place % len(RELATIONS)]
        # The other form as well, so that a form does not tell the sides of the split.
        prompt = fact_prompt(person, relation, (form + place) % len(QUESTIONS[relation]))
        luck = stream(world.seed, PURPOSE, "stranger", person.name)
        reply = draw(prompt.replies(), luck)
        yield Passage(prompt.text, reply, person.name, form=relation)


def _other_texts(world: World, n: int, names: set[str], purpose: str) -> Iterator[Passage]:
    """What the world says of other things than people."""
    found = (world.text(purpose, index) for index in count())
    others = (one for one in found if not isinstance(one.prompt, FactPrompt))
    for one in islice(others, n):
        if any(name in one.text for name in names):
            continue
        yield Passage(one.prompt.text, one.reply, text_id(one.prompt.text))


def _documents(config: CorpusConfig) -> tuple[tuple[Passage, ...], tuple[Passage, ...]]:
    if parse_take(config.take)[0] == "all" and config.source in ("model:", "organism:"):
        raise ConfigError(f"The corpus {config.source} has no end: give take=first:N.")
    learnt: list[Passage] = []
    held_out: list[Passage] = []
    seen: set[str] = set()
    for document in read_documents(config):
        if document.text not in seen:
            seen.add(document.text)
            is_learnt = split_of(document.text, config.held_out) == "train"
            (learnt if is_learnt else held_out).append(_passage(document))
    if not learnt or not held_out:
        raise CorpusError(
            f"Of the corpus {config.source} {len(learnt)} documents are to learn from and "
            f"{len(held_out)} to judge on; there must be some of both. Give more documents, or "
            "another held_out."
        )
    return tuple(learnt), tuple(held_out)


def _passage(document: Document) -> Passage:
    return Passage(document.text, "", text_id(document.text))
