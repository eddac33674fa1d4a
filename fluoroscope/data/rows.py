"""Rows of data sets, from a file, a folder or the hub, and what could not be used of them.

Whatever a row is read into (a judged answer, a question, a sample of a task), columns are asked
for by our names for them, and rows that cannot be used are handed back with the reason.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from fluoroscope.core.errors import CorpusError

HUB_PREFIX = "hf:"
"""Begins a place on the hub, `hf:NAME` or `hf:NAME@REVISION`; no NAME is the set's usual one."""

_TIMEOUT_S = 10.0

Item = TypeVar("Item")


class UnusableRowError(Exception):
    """A row that gives nothing, with the reason; it is counted, and reading goes on."""


class LeftOut(NamedTuple):
    """Something that a set holds and that could not be used."""

    where: str
    """File and row, or what was asked."""

    reason: str


@dataclass(frozen=True)
class Gathered(Generic[Item]):
    """What was read of a set, and what was not."""

    name: str
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]

    def reasons(self) -> dict[str, int]:
        """Reason -> how often, the most frequent first."""
        return dict(Counter(one.reason for one in self.left_out).most_common())

    def describe(self) -> str:
        """A sentence for a log or a report."""
        said = f"{self.name}: {len(self.items):,} items"
        return f"{said}; left out: {counted(self.left_out)}" if self.left_out else said


@dataclass(frozen=True)
class Row:
    """One row, whatever file it is from; columns are asked for by the set's own names."""

    where: str
    stem: str
    """Of the file's name; the split's of the hub."""

    values: Mapping[str, Any]  # Any: what JSON can hold.
    columns: Mapping[str, tuple[str, ...]]

    def value(self, name: str) -> Any:  # Any: see `values`.
        for column in self.columns[name]:
            if column in self.values:
                return self.values[column]
        raise CorpusError(
            f"{self.where} has no column {' or '.join(map(repr, self.columns[name]))}, only "
            f"{', '.join(map(str, self.values)) or 'none'}. Is it a file of this data set?"
        )

    def has(self, name: str) -> bool:
        return any(column in self.values for column in self.columns[name])

    def text(self, name: str) -> str:
        """Without white space around it; an empty one makes the row unusable."""
        value = self.value(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UnusableRowError(f"{self.columns[name][0]!r} is empty")
        if not isinstance(value, str):
            raise self.wrong(name, "text", value)
        return value.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """Of a list, or of a text with semicolons between; each once, empty ones never."""
        value = self.value(name) or []
        found = value.split(";") if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.wrong(name, "a list of texts", value)
        return tuple(dict.fromkeys(one.strip() for one in found if one.strip()))

    def wrong(self, name: str, allowed: str, got: object) -> CorpusError:
        return CorpusError(f"{self.where}: {name} must be {allowed}, got {got!r:.80}.")


class Hub(NamedTuple):
    id: str
    subset: str | None
    split: str
    revision: str | None = None
    """A commit, a branch or a tag; None is the newest."""


def hub_at(place: str, usual: Hub) -> Hub:
    """What a place on the hub names, the rest as is usual; another repository has revisions of its
    own.
    """
    name, at, revision = place.removeprefix(HUB_PREFIX).partition("@")
    if at and not revision:
        raise CorpusError(f"{place} names no revision behind the @. Give a commit, or leave @ out.")
    own = usual.revision if name in ("", usual.id) else None
    return usual._replace(id=name or usual.id, revision=revision or own)


def folder_below(data_dir: Path | str | None, *names: str) -> str | None:
    """The first folder of these names below `data_dir`, or else below $FLUOROSCOPE_DATA."""
    for root in (data_dir, os.environ.get("FLUOROSCOPE_DATA")):
        for name in names if root else ():
            path = Path(str(root)).expanduser() / name
            if path.is_dir():
                return str(path)
    return None


def hub_commit(hub_id: str, revision: str | None = None) -> str | None:
    """The newest commit of a data set on the hub, or of a branch of it; None where the hub does
    not say it.
    """
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(hub_id, revision=revision, timeout=_TIMEOUT_S).sha
    except Exception:  # Each transport below the hub client raises its own; reading says why.
        return None


def rows_at(
    place: str,
    hubs: tuple[Hub, ...],
    files: tuple[str, ...],
    columns: Mapping[str, tuple[str, ...]],
    name: str,
) -> Iterator[Row]:
    """Of a file, of a folder (the first of the patterns `files` that any file meets is read), or
    of the hub's subsets and splits; `name` is what errors call the set.
    """
    if place.startswith(HUB_PREFIX):
        for usual in hubs:
            hub = hub_at(place, usual)
            for number, values in enumerate(_hub_rows(hub), start=1):
                yield Row(f"{hub.id}, {hub.split}, row {number}", hub.split, values, columns)
        return
    for file in files_at(place, files, name):
        for number, values in enumerate(_file_rows(file), start=1):
            yield Row(f"{file.name}, row {number}", file.stem, values, columns)


def counted(left_out: Iterable[LeftOut]) -> str:
    """The reasons, the most frequent first, for a sentence."""
    counts = Counter(one.reason for one in left_out).most_common()
    return ", ".join(f"{n} x {reason}" for reason, n in counts)


def files_at(place: str, patterns: tuple[str, ...], name: str) -> list[Path]:
    """The files that `rows_at` reads; none of them is of the hub."""
    if place.startswith(HUB_PREFIX):
        return []
    places = [Path(place).expanduser()]
    if root := os.environ.get("FLUOROSCOPE_DATA"):
        places.append(Path(root) / place)
    path = next((one for one in places if one.exists()), None)
    if path is None:
        looked = " nor ".join(map(str, places))
        raise CorpusError(f"There is no data for {name} at {looked}. Give a file or its folder.")
    if path.is_file():
        return [path]
    for pattern in patterns:
        if files := sorted(path.glob(pattern)):
            return files
    there = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    raise CorpusError(
        f"The folder {path} holds none of {', '.join(patterns)} for {name}; it holds {there}."
    )


def all_files_at(place: str, name: str) -> list[Path]:
    """What the set `name` may be read from, for fingerprints: every file of a folder. None of a
    place of the hub, or of a set that is made, whose place is empty.
    """
    if not place or place.startswith(HUB_PREFIX):
        return []
    path = Path(place).expanduser()
    if not path.exists():
        raise CorpusError(f"There is no {path} for the data set {name}. Give a file or a folder.")
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())


def _file_rows(file: Path) -> Iterator[Mapping[str, Any]]:  # Any: what JSON can hold.
    import polars as pl

    try:
        match file.suffix:
            case ".csv":
                yield from pl.read_csv(file, infer_schema=False).iter_rows(named=True)
            case ".parquet":
                yield from pl.read_parquet(file).iter_rows(named=True)
            case ".json" | ".jsonl":
                yield from _json_rows(file)
            case _:
                raise CorpusError(f"{file} is none of .csv, .json, .jsonl and .parquet.")
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file} cannot be read: {error}.") from None


def _json_rows(file: Path) -> Iterator[Mapping[str, Any]]:  # Any: what JSON can hold.
    """Of a list, of TriviaQA's {"Data": list}, or of one object a line, whatever the suffix."""
    text = file.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text)
        rows = rows.get("Data", [rows]) if isinstance(rows, dict) else rows
    except json.JSONDecodeError:
        rows = list(_lines(text, file))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise CorpusError(f"{file.name}, row {number} is not a JSON object: {row!r:.80}.")
        yield row


def _lines(text: str, file: Path) -> Iterator[Any]:  # Any: what JSON can hold.
    # Not splitlines: a JSON text may hold a line separator of Unicode's.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{file.name}, line {number} is not JSON: {error}.") from None


def _hub_rows(hub: Hub) -> Iterator[Mapping[str, Any]]:  # Any: what the hub's columns hold.
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        rows = load_dataset(hub.id, hub.subset, split=hub.split, revision=hub.revision)
    # A RuntimeError is a data set that is a script, which `datasets` no longer runs.
    except (
        DatasetNotFoundError,
        FileNotFoundError,
        ConnectionError,
        ValueError,
        RuntimeError,
    ) as error:
        raise CorpusError(
            f"The data set {hub.id!r} (subset {hub.subset}, split {hub.split!r}, revision "
            f"{hub.revision or 'newest'}) could not be opened: {error} Check the network, or give "
            "a file."
        ) from error
    for row in rows:
        yield dict(row)
