"""A set of questions that are answered in writing: where it is from, and its sides.

A set is a file of its own and one line in `names.HOMES`; `file:PATH` is a set too, of whatever
table is there; others are made and not read. Nothing is left out because it is long.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.registry import Registry
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.base import Origin
from fluoroscope.data.questions.generated_config import GeneratedConfig
from fluoroscope.data.questions.names import FILE_PREFIX, HOMES, canonical_name
from fluoroscope.data.questions.question import Kind, Question
from fluoroscope.data.rows import HUB_PREFIX, Gathered, Hub, folder_below, hub_commit

SEED = 42
"""Of the sides that are drawn, as the plan of the connection study has it."""

QUESTION_SETS: "Registry[QuestionSet]" = Registry("Question set", HOMES)
_TABLES: "Registry[Callable[[str], QuestionSet]]" = Registry(
    "Question set", {FILE_PREFIX: "fluoroscope.data.questions.table:table_at"}
)


class Majority(NamedTuple):
    """The most frequent answer of a side."""

    target: str
    share: float


@dataclass(frozen=True)
class GatheredQuestions(Gathered[Question]):
    """What was read or made of a set, with what only reading tells."""

    kind: Kind = "text"
    choices: tuple[str, ...] | None = None
    """All answers that there are, where these are known."""

    origins: Mapping[Split, Origin] = field(default_factory=dict)
    """Whether a side is the set's own, or drawn by us."""

    notes: tuple[str, ...] = ()
    """What a report must say of the sides: which part stands in for which, how many there are."""

    def side(self, split: Split) -> list[Question]:
        return [one for one in self.items if one.split == split]

    def depths(self, split: Split) -> dict[int | None, int]:
        """Depth -> questions of it, in their order."""
        counts = Counter(one.depth for one in self.items if one.split == split)
        return {depth: counts[depth] for depth in sorted(counts, key=lambda one: one or 0)}

    def majority(self, split: Split) -> Majority:
        """What always saying one answer would get; of answers as frequent the first by name."""
        counts = Counter(one.target for one in self.items if one.split == split)
        if not counts:
            raise CorpusError(f"{self.name} has nothing on its {split} side.")
        target = min(counts, key=lambda one: (-counts[one], one))
        return Majority(target, counts[target] / counts.total())

    def describe(self) -> str:
        """Sentences for a log or a report."""
        return ". ".join((super().describe(), *self.notes))


class QuestionSet(ABC):
    name: str
    kind: Kind
    aliases: tuple[str, ...] = ()
    """Folders below the data's that hold it, besides one of its own name."""

    is_made: bool = False
    """Whether it is made and not read: it needs no place, and has few words."""

    @property
    def choices(self) -> tuple[str, ...] | None:
        """All answers that there are; None where these are not known, or only reading tells."""
        return None

    @property
    def hub(self) -> Hub | None:
        """Where on the hub it is usually read from."""
        return None

    def with_settings(self, generated: GeneratedConfig) -> "QuestionSet":
        """The set as it is made by these settings; one that is read stays as it is."""
        return self

    @abstractmethod
    def read(self, place: Path | str | None = None, *, seed: int = SEED) -> GatheredQuestions:
        """`place` is a file, a folder, `hf:NAME` or `hf:NAME@REVISION`; empty for a set that is
        made. `seed` is of the sides that are drawn, and of what is made.

        Every side has a question at least, or this is a CorpusError.
        """


def question_set(name: str, generated: GeneratedConfig | None = None) -> QuestionSet:
    """A set by any of its names, or `file:PATH`."""
    name = canonical_name(name)
    if name.startswith(FILE_PREFIX):
        return _TABLES.load(FILE_PREFIX)(name.removeprefix(FILE_PREFIX))
    known = QUESTION_SETS.load(name)
    return known.with_settings(generated) if generated else known


def question_place(name: str, data_dir: Path | str | None = None) -> str:
    """Where a set is read from: below `data_dir` or else $FLUOROSCOPE_DATA, if either has a folder
    for it; else the hub. Empty for a set that is made.
    """
    name = canonical_name(name)
    if name.startswith(FILE_PREFIX):
        return name.removeprefix(FILE_PREFIX)
    known = question_set(name)
    if known.is_made:
        return ""
    return folder_below(data_dir, name, *known.aliases) or HUB_PREFIX


def question_commit(name: str, data_dir: Path | str | None = None) -> str | None:
    """The newest commit of a set that is read from the hub; `hf:@COMMIT` is a place that pins it.
    None for what is not read from there, or where the hub does not say it.
    """
    hub = question_set(name).hub
    if hub is None or question_place(name, data_dir) != HUB_PREFIX:
        return None
    return hub_commit(hub.id, hub.revision)


def check_sides(questions: Sequence[Question], name: str) -> None:
    """Refuses a side that is empty."""
    counts = Counter(one.split for one in questions)
    for side in ("train", "validation", "test"):
        if not counts[side]:
            raise CorpusError(
                f"{name} has nothing on its {side} side, and {len(questions)} questions in all. "
                "Give more of them, or sides of its own."
            )
