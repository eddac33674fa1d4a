"""A question set that is read from files or the hub."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.lines import table
from fluoroscope.data.labelled.written import SIDES, TABLES, Form, form_rows
from fluoroscope.data.questions.base import (
    SEED,
    GatheredQuestions,
    QuestionSet,
    check_sides,
)
from fluoroscope.data.questions.question import Kind, Question, question_id
from fluoroscope.data.questions.sides import FoundQuestion, split_questions
from fluoroscope.data.rows import Hub, LeftOut, Row, UnusableRowError, counted
from fluoroscope.data.tasks.prompts import LETTERS
from fluoroscope.data.tasks.splits import split_of_name


class Draft(NamedTuple):
    """What a row gives, before it has an id and a side."""

    source: str
    target: str
    group_id: str


@dataclass(frozen=True, kw_only=True)
class WrittenQuestions(QuestionSet):
    """Its own forms are tried in their order, then any table with the hub's columns."""

    name: str
    kind: Kind
    prompt: str
    """The form of a source, for people to read."""

    hubs: tuple[Hub, ...]
    columns: Mapping[str, tuple[str, ...]]
    """Our name of a column -> the names it goes by, in files and on the hub."""

    draft: Callable[[Row], Draft]
    """What a row gives; it may raise `UnusableRowError`."""

    answers: tuple[str, ...] | None = None
    """All that there are, where these are known."""

    forms: tuple[Form, ...] = ()
    sides: Mapping[str, Split] = field(default_factory=lambda: SIDES)
    """Word in a file's name, or the hub's split -> its side."""

    aliases: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...] | None:
        return self.answers

    @property
    def hub(self) -> Hub | None:
        return self.hubs[0] if self.hubs else None

    def read(self, place: Path | str | None = None, *, seed: int = SEED) -> GatheredQuestions:
        if not place:
            raise CorpusError(f"{self.name} needs a file, a folder, or hf: for the hub's copy.")
        found: list[FoundQuestion] = []
        left_out: list[LeftOut] = []
        forms = (*self.forms, Form(TABLES, table))
        for row, _ in form_rows(str(place), self.name, self.hubs, forms, self.columns):
            try:
                draft = self.draft(row)
            except UnusableRowError as error:
                left_out.append(LeftOut(row.where, str(error)))
                continue
            side = split_of_name(row.stem, self.sides)
            question = drafted(self.name, draft, side or "train", self.choices)
            found.append(FoundQuestion(row.where, side, question))
        return gathered(self.name, str(place), self.kind, self.choices, found, left_out, seed)


def drafted(
    name: str,
    draft: Draft,
    split: Split,
    choices: tuple[str, ...] | None,
    depth: int | None = None,
) -> Question:
    return Question(
        id=question_id(name, draft.source, depth),
        group_id=draft.group_id,
        split=split,
        source=draft.source,
        target=draft.target,
        choices=choices,
        depth=depth,
    )


def gathered(
    name: str,
    place: str,
    kind: Kind,
    choices: tuple[str, ...] | None,
    found: list[FoundQuestion],
    left_out: list[LeftOut],
    seed: int,
) -> GatheredQuestions:
    """The set with its sides, none of which is empty."""
    if not found:
        why = f" Left out: {counted(left_out)}." if left_out else " It holds no rows."
        raise CorpusError(f"{place} gives nothing that {name} could use.{why}")
    sides = split_questions(found, seed)
    check_sides(sides.questions, f"{name} (read from {place})")
    return GatheredQuestions(
        name,
        tuple(sides.questions),
        (*left_out, *sides.left_out),
        kind,
        choices,
        sides.origins,
        sides.notes,
    )


def lettered_options(options: list[str]) -> str:
    """`A) one B) two ...`, in one line."""
    return " ".join(f"{LETTERS[i]}) {option}" for i, option in enumerate(options))
