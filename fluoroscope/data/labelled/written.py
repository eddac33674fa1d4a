"""A set that is read from files or the hub, and the forms that its files come in."""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import HUB_PREFIX, Split
from fluoroscope.data.labelled.base import GatheredExamples, LabelledSet, check_classes
from fluoroscope.data.labelled.example import Example, Splitting, Task, example_id, group_of
from fluoroscope.data.labelled.lines import Reader, table
from fluoroscope.data.labelled.splitting import Found, PaperSides, split_examples
from fluoroscope.data.rows import (
    Hub,
    LeftOut,
    Row,
    UnusableRowError,
    counted,
    files_at,
    rows_at,
)
from fluoroscope.data.tasks.splits import split_of_name

TABLES = ("*.csv", "*.tsv", "*.jsonl", "*.json", "*.parquet")
SIDES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Word in a file's name, or the hub's split -> its side."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "Text"),
    "pair": ("pair", "hypothesis", "sentence2"),
    "label": ("label_text", "label", "Sentiment", "gold_label"),
}
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


@dataclass(frozen=True)
class Form:
    """One way that files of a set are written."""

    files: tuple[str, ...]
    """Names, or patterns of names, in the set's folder; all that are there are read."""

    read: Reader
    labels: Mapping[str, str] = field(default_factory=dict)
    """As written -> class, besides the classes' own names; where empty, their numbers too."""


@dataclass(frozen=True, kw_only=True)
class WrittenSet(LabelledSet):
    """Its own forms are tried in their order, then any table with the hub's columns."""

    name: str
    classes: tuple[str, ...]
    """In the order of the hub's numbers."""

    hubs: tuple[Hub, ...]
    forms: tuple[Form, ...] = ()
    task: Task = "classification"
    aliases: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: COLUMNS)
    hub_labels: Mapping[str, str] = field(default_factory=dict)
    """As `Form.labels`."""

    unlabelled: Mapping[str, str] = field(default_factory=dict)
    """Labels that leave a row out -> the reason."""

    sides: Mapping[str, Split] = field(default_factory=lambda: SIDES)
    parts: Mapping[str, str] = field(default_factory=dict)
    """Word in a file's name, or the hub's split -> part of the test side."""

    paper: PaperSides | None = None

    @property
    def hub_id(self) -> str | None:
        return self.hubs[0].id if self.hubs else None

    def read(
        self, place: Path | str | None = None, *, seed: int = 0, splitting: Splitting = "sound"
    ) -> GatheredExamples:
        if not place:
            raise CorpusError(f"{self.name} needs a file, a folder, or hf: for the hub's copy.")
        found: list[Found] = []
        left_out: list[LeftOut] = []
        for row, labels in self._rows(str(place)):
            try:
                label = self._label(row, labels)
                side = split_of_name(row.stem, self.sides)
                part = next((self.parts[w] for w in _words(row.stem) if w in self.parts), "")
                found.append(found_in(row, self.name, self.task, label, side, part))
            except UnusableRowError as error:
                left_out.append(LeftOut(row.where, str(error)))
        reading = Reading(self.name, str(place), self.task, self.classes, found, left_out)
        return gathered(reading, splitting, seed, self.paper)

    def _rows(self, place: str) -> Iterator[tuple[Row, Mapping[str, str]]]:
        """Each with what its labels mean."""
        # Labels of a table are the hub's, whose copy it is taken for.
        forms = (*self.forms, Form(TABLES, table, self.hub_labels))
        for row, form in form_rows(place, self.name, self.hubs, forms, self.columns):
            yield row, form.labels if form else self.hub_labels

    def _label(self, row: Row, labels: Mapping[str, str]) -> int:
        written = label_text(row.value("label"))
        if written in self.unlabelled:
            raise UnusableRowError(self.unlabelled[written])
        known = labels or {str(number): name for number, name in enumerate(self.classes)}
        name = known.get(written, written)
        if name not in self.classes:
            raise CorpusError(
                f"{row.where}: the label {written!r} is none of {self.name}, which has "
                f"{', '.join(self.classes)} (written {', '.join(known)}). Is it a file of this set?"
            )
        return self.classes.index(name)


class Reading(NamedTuple):
    """What the rows of a set gave, before it is split."""

    name: str
    place: str
    task: Task
    classes: tuple[str, ...]
    found: list[Found]
    left_out: list[LeftOut]


def found_in(
    row: Row, name: str, task: Task, label: int, side: Split | None, part: str = ""
) -> Found:
    """The example that a row is; texts of pairs are left as they are, others cleaned."""
    text = row.text("text")
    pair = row.text("pair") if task == "entailment" else None
    text = cleaned(text) if pair is None else text
    if not text:
        raise UnusableRowError("nothing but markup is in it")
    example = Example(
        id=example_id(name, text, pair),
        text=text,
        pair=pair,
        label=label,
        split=side or "train",
        group_id=group_of(text),
        part=part if side == "test" else "",
    )
    return Found(row.where, side, example)


def gathered(
    reading: Reading, splitting: Splitting, seed: int, paper: PaperSides | None = None
) -> GatheredExamples:
    """The set with its sides, each of which has two classes or more."""
    name, place, task, classes, found, left_out = reading
    if not found:
        why = f" Left out: {counted(left_out)}." if left_out else " It holds no rows."
        raise CorpusError(f"{place} gives nothing that {name} could use.{why}")
    sides = split_examples(found, splitting, seed, paper)
    check_classes(sides.examples, classes, f"{name} (read from {place})")
    rest = (*left_out, *sides.left_out)
    return GatheredExamples(name, tuple(sides.examples), rest, classes, sides.origins, task)


def form_rows(
    place: str,
    name: str,
    hubs: tuple[Hub, ...],
    forms: tuple[Form, ...],
    columns: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[Row, Form | None]]:
    """Rows of the hub, or of the files of the first form that any file has, each with its form;
    the stem is the whole name of a file.
    """
    if place.startswith(HUB_PREFIX):
        if not hubs:
            raise CorpusError(f"{name} is not on the hub. Give the folder of its files.")
        for row in rows_at(place, hubs, (), columns, name):
            yield row, None
        return
    form, files = _files(place, forms, name)
    for file in files:
        for number, values in enumerate(form.read(file), start=1):
            yield Row(f"{file.name}, row {number}", file.name, values, columns), form


class _FormFiles(NamedTuple):
    form: Form
    files: list[Path]


def cleaned(text: str) -> str:
    """Without HTML, a space in the place of each tag, and with white space collapsed."""
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def label_text(value: object) -> str:
    """How a label is written, whichever type a file gives it."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return str(value).strip().casefold()


def _words(name: str) -> list[str]:
    return re.split(r"[_\-. ]+", name.casefold())


def _files(place: str, forms: tuple[Form, ...], name: str) -> _FormFiles:
    patterns = tuple(pattern for form in forms for pattern in form.files)
    [first, *_] = files_at(place, patterns, name)
    for form in forms:
        if any(first.match(pattern) for pattern in form.files):
            is_file = not Path(place).expanduser().is_dir() and first.name == Path(place).name
            folder = [first] if is_file else sorted(first.parent.iterdir())
            files = [one for one in folder if any(one.match(p) for p in form.files)]
            return _FormFiles(form, files)
    known = ", ".join(dict.fromkeys(patterns))
    raise CorpusError(f"{first} is named as no file of {name} is: {known}.")
