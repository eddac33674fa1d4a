"""Where data sets of answers come from: a file, a folder, or the hub, by the set's name.

A set is a `FileSource` in a file of its own: where it lies, the names of its columns, what a
group is, the form of its prompts, and what one row gives. `ANSWER_SETS` give answers that are
stated and judged already; `QUESTION_SETS` give prompts for a model's own answers. The two are
separate tracks and never mixed. Rows that cannot be used are handed back with the reason.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.registry import Registry
from fluoroscope.data.answers.record import AnswerRecord, OpenQuestion
from fluoroscope.data.rows import (
    Gathered,
    Hub,
    LeftOut,
    Row,
    UnusableRowError,
    counted,
    files_at,
    rows_at,
)

_HERE = "fluoroscope.data.answers"
ANSWER_SETS: "Registry[Source[AnswerRecord]]" = Registry(
    "Answer set",
    {
        "halueval-dialogue": f"{_HERE}.halueval:DIALOGUE",
        "halueval-general": f"{_HERE}.halueval:GENERAL",
        "halueval-qa": f"{_HERE}.halueval:QA",
        "halueval-summarization": f"{_HERE}.halueval:SUMMARIZATION",
        "organism": "fluoroscope.organism.answer_records:REPLIES",
        "true-false": f"{_HERE}.true_false:TRUE_FALSE",
        "truthfulqa": f"{_HERE}.truthfulqa:PAIRS",
        "truthfulqa-binary": f"{_HERE}.truthfulqa:MC0",
        "truthfulqa-mc": f"{_HERE}.truthfulqa:MC2",
        "truthfulqa-mc1": f"{_HERE}.truthfulqa:MC1",
    },
)
QUESTION_SETS: "Registry[Source[OpenQuestion]]" = Registry(
    "Question set",
    {
        "organism": "fluoroscope.organism.answer_records:ASKED",
        "triviaqa": f"{_HERE}.triviaqa:OWN",
        "truthfulqa": f"{_HERE}.truthfulqa:OWN",
    },
)

REPEATED = "the same text came before, with the same label"
"""A reason that takes nothing away."""

Item = TypeVar("Item", AnswerRecord, OpenQuestion)


class Source(ABC, Generic[Item]):
    name: str
    group: str
    """What is kept on one side of a split."""

    prompt: str
    """The form of a prompt, for people to read."""

    @abstractmethod
    def read(self, place: Path | str | None = None) -> Gathered[Item]:
        """`place` is a file, a folder, `hf:NAME`, or None where the set needs none."""

    def files_of(self, place: Path | str | None) -> list[Path]:
        """The files on this machine that are read at `place`."""
        return []


@dataclass(frozen=True)
class FileSource(Source[Item]):
    name: str
    group: str
    prompt: str
    hub: Hub
    files: tuple[str, ...]
    """What to look for in a folder; the first pattern that any file meets is read."""

    columns: Mapping[str, tuple[str, ...]]
    """Our name of a column -> the names it goes by, in files and on the hub."""

    items: Callable[[Row], Iterable[Item | LeftOut]]
    """What a row gives; it may raise `UnusableRowError`."""

    def files_of(self, place: Path | str | None) -> list[Path]:
        return files_at(self._place(place), self.files, self.name)

    def _place(self, place: Path | str | None) -> str:
        if place is None:
            raise CorpusError(f"{self.name} needs a file, a folder, or hf: for the hub's copy.")
        return str(place)

    def read(self, place: Path | str | None = None) -> Gathered[Item]:
        found: list[tuple[str, Item]] = []
        left_out: list[LeftOut] = []
        for row in rows_at(self._place(place), (self.hub,), self.files, self.columns, self.name):
            try:
                for item in self.items(row):
                    if isinstance(item, LeftOut):
                        left_out.append(item)
                    else:
                        found.append((row.where, item))
            except UnusableRowError as error:
                left_out.append(LeftOut(row.where, str(error)))
        items, repeated = _without_repeats(found)
        gathered = Gathered(self.name, tuple(items), (*left_out, *repeated))
        _check_usable(gathered, str(place))
        return gathered


def _without_repeats(found: list[tuple[str, Item]]) -> tuple[list[Item], list[LeftOut]]:
    """Each text once, and none of those that are labelled both ways."""
    labels: dict[str, set[int]] = {}
    for _, item in found:
        labels.setdefault(item.id, set()).add(_label(item))
    items, left_out, seen = [], [], set()
    for where, item in found:
        if len(labels[item.id]) > 1:
            left_out.append(LeftOut(where, "the same text is labelled true and made up"))
        elif item.id in seen:
            left_out.append(LeftOut(where, REPEATED))
        else:
            items.append(item)
        seen.add(item.id)
    return items, left_out


def _label(item: AnswerRecord | OpenQuestion) -> int:
    return item.label if isinstance(item, AnswerRecord) else 0


def _check_usable(gathered: Gathered[Any], place: str) -> None:  # Any: of either kind.
    why = ""
    if gathered.left_out:
        first = gathered.left_out[0]
        why = f" Left out: {counted(gathered.left_out)} (first: {first.where}, {first.reason})."
    if not gathered.items:
        raise CorpusError(f"{place} gives nothing that {gathered.name} could use.{why}")
    labels = Counter(item.label for item in gathered.items if isinstance(item, AnswerRecord))
    if len(labels) == 1:
        [(label, n)] = labels.items()
        said = "made up" if label else "true"
        raise CorpusError(
            f"All {n} answers that {gathered.name} has in {place} are {said} (label {label}); "
            f"telling true from made up needs both.{why}"
        )
