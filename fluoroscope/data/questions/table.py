"""A table of the user's own as a question set: `file:PATH`.

A csv, tsv, json, jsonl or parquet file, or a folder of them, with the columns `source` and
`target`, and perhaps `group`, `depth` and `split`. Sides are those of `split`, else of the files'
names, else drawn. Targets are choices where there are at most 20 of them and ten rows for each,
else numbers where all are, else text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.labelled.example import group_of
from fluoroscope.data.labelled.table import side_of, table_rows
from fluoroscope.data.questions.base import SEED, GatheredQuestions, QuestionSet
from fluoroscope.data.questions.question import Kind
from fluoroscope.data.questions.scoring import is_number
from fluoroscope.data.questions.sides import FoundQuestion
from fluoroscope.data.questions.written import Draft, drafted, gathered
from fluoroscope.data.rows import LeftOut, Row, UnusableRowError

COLUMNS = {
    "source": ("source", "question", "input"),
    "target": ("target", "answer", "output"),
    "group": ("group", "group_id"),
    "depth": ("depth",),
    "split": ("split",),
}
_MOST_CHOICES = 20
_ROWS_OF_A_CHOICE = 10


@dataclass(frozen=True)
class QuestionTable(QuestionSet):
    name: str
    path: str
    kind: Kind = "text"
    """What reading finds may be another."""

    def read(self, place: Path | str | None = None, *, seed: int = SEED) -> GatheredQuestions:
        """`place` is its own path if it is not given."""
        place = str(place or self.path)
        read: list[tuple[Row, Draft]] = []
        left_out: list[LeftOut] = []
        for row in table_rows(place, self.name, COLUMNS):
            try:
                read.append((row, _draft(row)))
            except UnusableRowError as error:
                left_out.append(LeftOut(row.where, str(error)))
        targets = [draft.target for _, draft in read]
        choices = _choices(targets)
        kind = "choice" if choices else "number" if all(map(is_number, targets)) else "text"
        found: list[FoundQuestion] = []
        for row, draft in read:
            side = side_of(row)
            question = drafted(self.name, draft, side or "train", choices, _depth(row))
            found.append(FoundQuestion(row.where, side, question))
        return gathered(self.name, place, kind, choices, found, left_out, seed)


def table_at(path: str) -> QuestionTable:
    """The set that a table, or a folder of tables, is."""
    if not path.strip():
        raise CorpusError("file: needs the path of a table or of a folder behind it.")
    return QuestionTable(name=Path(path).stem, path=path)


def _draft(row: Row) -> Draft:
    source, target = _text(row, "source"), _text(row, "target")
    group = _text(row, "group") if row.has("group") else group_of(source)
    return Draft(source, target, group)


def _text(row: Row, name: str) -> str:
    value = row.value(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return row.text(name)
    return str(int(value) if float(value).is_integer() else value)


def _depth(row: Row) -> int | None:
    value = row.value("depth") if row.has("depth") else None
    said = "" if value is None else str(value).strip()
    if not said:
        return None
    if not said.removesuffix(".0").isdecimal():
        raise row.wrong("depth", "a whole number from 0, or empty", value)
    return int(said.removesuffix(".0"))


def _choices(targets: Sequence[str]) -> tuple[str, ...] | None:
    found = sorted(set(targets))
    is_few = len(found) <= min(_MOST_CHOICES, len(targets) // _ROWS_OF_A_CHOICE)
    return tuple(found) if found and is_few else None
