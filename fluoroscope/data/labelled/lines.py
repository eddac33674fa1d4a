"""Rows of the plain files that labelled sets come in, none of which name their encoding."""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.rows import rows_at

Values = Mapping[str, Any]  # Any: what JSON can hold.
Reader = Callable[[Path], Iterator[Values]]


def columns_of(*names: str, separator: str = "\t", has_quotes: bool = False) -> Reader:
    """Of a file without a header; a row has these columns and no others."""

    def read(file: Path) -> Iterator[Values]:
        for number, values in _cells(file, separator, has_quotes):
            if len(values) != len(names):
                raise CorpusError(
                    f"{file.name}, row {number} has {len(values)} columns, expected "
                    f"{len(names)} ({', '.join(names)}). Is it a file of this data set?"
                )
            yield dict(zip(names, values, strict=True))

    return read


def headed(separator: str = "\t", *, has_quotes: bool = False) -> Reader:
    """Of a file whose first row names its columns; a longer row is an error, a shorter one too."""

    def read(file: Path) -> Iterator[Values]:
        rows = _cells(file, separator, has_quotes)
        _, names = next(rows, (0, []))
        for number, values in rows:
            if len(values) != len(names):
                raise CorpusError(
                    f"{file.name}, row {number} has {len(values)} columns, its header "
                    f"{len(names)} ({', '.join(names)})."
                )
            yield dict(zip(names, values, strict=True))

    return read


def label_first(encoding: str = "latin-1") -> Reader:
    """Of lines `label text`, in the bytes that sets of that age were written in."""

    def read(file: Path) -> Iterator[Values]:
        for line in lines(file, encoding):
            label, _, text = line.partition(" ")
            yield {"label": label, "text": text}

    return read


def beside(text: str, labels: str) -> Reader:
    """Of two files, a text a line and its label on the same line of the other, whose name has
    `labels` where that of the first has `text`.
    """

    def read(file: Path) -> Iterator[Values]:
        other = file.with_name(file.name.replace(text, labels))
        if not other.is_file():
            raise CorpusError(f"There are no labels for {file}: {other.name} is not beside it.")
        texts, found = list(lines(file)), list(lines(other))
        if len(texts) != len(found):
            raise CorpusError(
                f"{file} has {len(texts)} texts and {other.name} {len(found)} labels; one a line."
            )
        for one, label in zip(texts, found, strict=True):
            yield {"text": one, "label": label.strip()}

    return read


def table(file: Path) -> Iterator[Values]:
    """Of a csv, tsv, json, jsonl or parquet file that names its columns."""
    if file.suffix == ".tsv":
        yield from headed(has_quotes=True)(file)
        return
    for row in rows_at(str(file), (), (), {}, file.name):
        yield row.values


def lines(file: Path, encoding: str = "utf-8-sig") -> Iterator[str]:
    """Not as `splitlines` has it: old texts hold characters that it takes for ends of lines."""
    try:
        text = file.read_bytes().decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{file} is not UTF-8: {error}. Convert it (iconv -t utf-8), and try again."
        ) from None
    found = text.split("\n")
    yield from found if found[-1] else found[:-1]


def _cells(file: Path, separator: str, has_quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """Rows from 1, without blank ones."""
    if has_quotes:
        # With their ends, which a quoted cell may hold.
        rows = csv.reader((f"{line}\n" for line in lines(file)), delimiter=separator)
    else:
        rows = (line.split(separator) for line in lines(file))
    try:
        for number, values in enumerate(rows, start=1):
            if any(value.strip() for value in values):
                yield number, values
    except csv.Error as error:
        raise CorpusError(f"{file} cannot be read as a table: {error}.") from None
