r"""Numbers of a run as LaTeX macros, so that a paper's text says what the run found.

What gets a macro:
- an estimate with an interval (`interval_columns.py` says which): `\NAME` is the value, `\NAMELow`
  and `\NAMEHigh` its ends, and `\NAMEInterval` reads `value (low to high)`;
- a whole number (`count`, or `fact` where it is one of the headline), a p-value (`p`, in a column
  of that name, `q` or `p_holm`), and a number of the settings (`setting`).
Other fractions are taken for estimates without an interval: they get none, and are listed as
refused. So is an estimate in a row where its interval is missing, and a headline fact that is a
fraction.

A name is `Fluoro`, the study, the table, the column and the row, of letters only: digits are
spelled, `2.5` is `TwoPointFive`, a minus before a digit is `Minus`, and a word begins with a
capital. Where two come to be the same, the later in the order of tables (by name), rows and
columns gets `Two`, `Three`... at its end.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars

from fluoroscope.runs.interval_columns import (
    P_VALUES,
    Estimate,
    estimates,
    plain_numbers,
    row_key,
)
from fluoroscope.runs.number_format import MINUS, THIN_SPACE, column_texts, float_format

MAX_ROWS = 2000
"""A table with more rows than this is for its csv: it gets no macros."""

_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
_ENDS = ("", "Low", "High", "Interval")


class Number(NamedTuple):
    """One number that may be said."""

    kind: str
    """`estimate`, `count`, `p`, `setting` or `fact`."""

    table: str
    row: str
    column: str
    value: float | int
    low: float | None
    high: float | None
    texts: tuple[str, ...]
    """As LaTeX: the value, and of an estimate its ends."""


class Refused(NamedTuple):
    """Numbers that get no macro."""

    table: str
    column: str
    n: int
    reason: str


@dataclass(frozen=True)
class Macros:
    numbers: Mapping[str, Number]
    """Macro, without its backslash -> what it stands for."""

    refused: Sequence[Refused]

    def latex(self) -> str:
        lines = ["% Of numbers.csv: `value`, and of an estimate the ends of its 95 % interval."]
        for name, number in self.numbers.items():
            value, *ends = number.texts
            lines.append(_macro(name, value))
            if ends:
                lines += [_macro(f"{name}Low", ends[0]), _macro(f"{name}High", ends[1])]
                lines.append(_macro(f"{name}Interval", f"{value} ({ends[0]} to {ends[1]})"))
        return "\n".join(lines) + "\n"

    def index(self) -> polars.DataFrame:
        """numbers.csv."""
        rows = [
            (rf"\{name}", n.value, n.low, n.high, n.kind, n.table, n.row, n.column)
            for name, n in self.numbers.items()
        ]
        return polars.DataFrame(rows, schema=_INDEX, orient="row")

    def refusals(self) -> polars.DataFrame:
        """refused.csv."""
        return polars.DataFrame(list(self.refused), schema=_REFUSED, orient="row")


def macros(
    study: str,
    tables: Mapping[str, polars.DataFrame],
    facts: Mapping[str, str],
    settings: Mapping[str, object],
) -> Macros:
    """Of a run's tables, the facts of its report, and its settings."""
    numbers, refused = list[Number](), list[Refused]()
    for name, frame in sorted(tables.items()):
        if len(frame) > MAX_ROWS:
            reason = f"tables of more than {MAX_ROWS:,} rows get no macros"
            refused.append(Refused(name, "(all)", len(frame), reason))
            continue
        numbers += _of_table(name, frame)
        refused += _refused(name, frame)
    for name, text in sorted(facts.items()):
        bare = text.replace(THIN_SPACE, "")
        if re.fullmatch(r"\d+", bare):
            numbers.append(Number("fact", "", name, "", int(bare), None, None, (_latex(text),)))
        elif re.fullmatch(rf"[-{MINUS}]?\d[\d.,e{MINUS}]* ?%?", bare):
            refused.append(Refused("", name, 1, "a fact of the headline, without an interval"))
    numbers += list(_of_settings(settings))
    return Macros(_named(study, numbers), refused)


def letters(text: str) -> str:
    """`baseline + tracking, 2.5` -> `BaselineTrackingTwoPointFive`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"(?<=\d)\.(?=\d)", " point ", plain)
    plain = re.sub(r"(?<![A-Za-z0-9])-(?=\d)", " minus ", plain)
    plain = re.sub(r"\d", lambda digit: f" {_DIGITS[int(digit.group())]} ", plain)
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z]+", plain))


def _of_table(table: str, frame: polars.DataFrame) -> Iterator[Number]:
    key = row_key([frame])
    rows = _row_names(frame, key)
    with_interval = {found.value: found for found in estimates(frame)}
    texts = {name: _estimate_texts(frame, found) for name, found in with_interval.items()}
    plain = {
        name: column_texts(frame[name]) for name in frame.columns if _is_plain(frame, name, key)
    }
    for i, (row, cells) in enumerate(zip(rows, frame.iter_rows(named=True), strict=True)):
        for column in frame.columns:
            if column in with_interval:
                found = with_interval[column]
                value, low, high = (cells[name] for name in found)
                if _is_told(value, low, high):
                    yield Number("estimate", table, row, column, value, low, high, texts[column][i])
            elif column in plain and _is_told(cells[column]):
                kind = "p" if column in P_VALUES else "count"
                text = (_latex(plain[column][i]),)
                yield Number(kind, table, row, column, cells[column], None, None, text)


def _refused(table: str, frame: polars.DataFrame) -> Iterator[Refused]:
    for found in estimates(frame):
        ends = zip(*(frame[name].to_list() for name in found), strict=True)
        n = sum(_is_told(value) and not _is_told(low, high) for value, low, high in ends)
        if n:
            yield Refused(table, found.value, n, "the interval is missing in these rows")
    for name in plain_numbers(frame):
        n = sum(_is_told(value) for value in frame[name].to_list())
        if n and name not in P_VALUES:
            yield Refused(table, name, n, "no interval stands beside it")


def _of_settings(settings: Mapping[str, object]) -> Iterator[Number]:
    for name, value in sorted(settings.items()):
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_told(value):
            text = _latex(f"{value:,}".replace(",", THIN_SPACE).replace("-", MINUS))
            yield Number("setting", "", "", name, value, None, None, (text,))


def _named(study: str, numbers: Sequence[Number]) -> dict[str, Number]:
    found, taken = dict[str, Number](), set[str]()
    for number in numbers:
        kind = number.kind if number.kind in ("setting", "fact") else ""
        parts = ("fluoro", study, kind, number.table, number.column, number.row)
        base = name = "".join(letters(part) for part in parts)
        count = 1
        while not taken.isdisjoint(f"{name}{end}" for end in _ENDS):
            count += 1
            name = base + letters(str(count))
        taken |= {f"{name}{end}" for end in _ENDS}
        found[name] = number
    return found


def _row_names(frame: polars.DataFrame, key: Sequence[str]) -> list[str]:
    if not key:
        return ["" if len(frame) == 1 else f"row {i + 1}" for i in range(len(frame))]
    cells = zip(*(frame[name].to_list() for name in key), strict=True)
    return [" ".join("none" if cell is None else str(cell) for cell in row) for row in cells]


def _is_plain(frame: polars.DataFrame, name: str, key: Sequence[str]) -> bool:
    kind = frame[name].dtype
    return (kind.is_integer() and name not in key) or (kind.is_float() and name in P_VALUES)


def _estimate_texts(frame: polars.DataFrame, found: Estimate) -> list[tuple[str, ...]]:
    """Value and ends of each row, with decimals that suit the three of them."""
    rows = zip(*(frame[name].to_list() for name in found), strict=True)
    texts = list[tuple[str, ...]]()
    for row in rows:
        told = [float(value) for value in row if _is_told(value)]
        cells = polars.Series([float(value) for value in row]) if len(told) == 3 else None
        kind = float_format(told)
        texts.append(
            () if cells is None else tuple(_latex(text) for text in column_texts(cells, kind))
        )
    return texts


def _latex(text: str) -> str:
    """A number as `number_format` writes it, safe in text and in formulas."""
    digits, power, exponent = text.partition("e")
    body = digits.replace(MINUS, "-").replace(THIN_SPACE, r"\,")
    if power:
        body += rf"\times10^{{{exponent.replace(MINUS, '-')}}}"
    return body if re.fullmatch(r"[\d.]*", body) else rf"\ensuremath{{{body}}}"


def _macro(name: str, text: str) -> str:
    return rf"\newcommand{{\{name}}}{{{text}}}"


def _is_told(*values: float | int | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


_INDEX = {
    "macro": polars.String,
    "value": polars.Float64,
    "low": polars.Float64,
    "high": polars.Float64,
    "kind": polars.String,
    "table": polars.String,
    "row": polars.String,
    "column": polars.String,
}
_REFUSED = {
    "table": polars.String,
    "column": polars.String,
    "n": polars.Int64,
    "reason": polars.String,
}
