"""A table of the user's own as a labelled set: `file:PATH`.

A csv, tsv, json, jsonl or parquet file, or a folder of them, with a column of texts, one of labels
and perhaps one of second texts. Classes are what the labels are, sorted. Sides are those of a
column `split`, else of the files' names (`train`, `dev`, `test`), else drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.base import GatheredExamples, LabelledSet
from fluoroscope.data.labelled.example import Splitting, Task
from fluoroscope.data.labelled.lines import table
from fluoroscope.data.labelled.splitting import Found
from fluoroscope.data.labelled.written import SIDES, TABLES, Reading, found_in, gathered
from fluoroscope.data.rows import HUB_PREFIX, LeftOut, Row, UnusableRowError, files_at
from fluoroscope.data.tasks.splits import split_of_name

COLUMNS = {
    "text": ("text", "sentence", "premise", "sentence1", "Text"),
    "pair": ("pair", "hypothesis", "sentence2", "text_pair"),
    "label": ("label", "gold_label", "class", "target", "Sentiment"),
    "split": ("split",),
}


@dataclass(frozen=True)
class TableSet(LabelledSet):
    name: str
    path: str
    task: Task = "classification"
    """Unless its columns tell that texts are pairs, which `task_at` and `read` see."""

    classes: tuple[str, ...] = ()

    def task_at(self, place: Path | str | None = None) -> Task:
        return _task(table_rows(str(place or self.path), self.name, COLUMNS))

    def read(
        self, place: Path | str | None = None, *, seed: int = 0, splitting: Splitting = "sound"
    ) -> GatheredExamples:
        """`place` is its own path if it is not given."""
        rows = table_rows(str(place or self.path), self.name, COLUMNS)
        left_out: list[LeftOut] = []
        labels: list[tuple[Row, str]] = []
        for row in rows:
            label = _label(row)
            if label:
                labels.append((row, label))
            else:
                left_out.append(LeftOut(row.where, "it has no label"))
        classes = _classes([label for _, label in labels], self.name)
        task = _task(rows)
        found: list[Found] = []
        for row, label in labels:
            try:
                found.append(found_in(row, self.name, task, classes.index(label), side_of(row)))
            except UnusableRowError as error:
                left_out.append(LeftOut(row.where, str(error)))
        reading = Reading(self.name, str(place or self.path), task, classes, found, left_out)
        return gathered(reading, splitting, seed)


def table_at(path: str) -> TableSet:
    """The set that a table, or a folder of tables, is."""
    if not path.strip():
        raise CorpusError("file: needs the path of a table or of a folder behind it.")
    return TableSet(name=Path(path).stem, path=path)


def table_rows(place: str, name: str, columns: Mapping[str, tuple[str, ...]]) -> list[Row]:
    """Of a table, or of all tables of a folder."""
    if place.startswith(HUB_PREFIX):
        raise CorpusError(f"{name} is a table of your own and not on the hub: {place}.")
    [first, *_] = files_at(place, TABLES, name)
    is_folder = first.name != Path(place).name
    folder = sorted(first.parent.iterdir()) if is_folder else [first]
    files = [one for one in folder if any(one.match(pattern) for pattern in TABLES)]
    return [
        Row(f"{file.name}, row {number}", file.name, values, columns)
        for file in files or [first]
        for number, values in enumerate(table(file), start=1)
    ]


def side_of(row: Row) -> Split | None:
    """What its column `split` says, else the name of its file."""
    if not row.has("split"):
        return split_of_name(row.stem, SIDES)
    written = str(row.value("split")).strip().casefold()
    if written not in SIDES:
        raise row.wrong("split", f"one of {', '.join(SIDES)}", written)
    return SIDES[written]


def _task(rows: Sequence[Row]) -> Task:
    return "entailment" if any(row.has("pair") for row in rows) else "classification"


def _label(row: Row) -> str:
    value = row.value("label")
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return "" if value is None else str(value).strip()


def _classes(labels: Sequence[str], name: str) -> tuple[str, ...]:
    """Numbers by their size, names by the alphabet."""
    found = sorted(set(labels))
    if len(found) > 2 and len(found) > len(labels) / 2:
        raise CorpusError(
            f"{name} has {len(found)} different labels in {len(labels)} rows, the first of them "
            f"{found[0]!r}. Is the column of labels one of numbers, or of ids?"
        )
    if all(label.removeprefix("-").isdecimal() for label in found):
        return tuple(sorted(found, key=int))
    return tuple(found)
