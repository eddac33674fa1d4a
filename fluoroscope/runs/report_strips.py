"""Strips: the tokens of a text, each above a cell for every number that is known of it.

All strips of one call have the same scale for numbers of the same name, and a cell is the
stronger coloured the nearer its number is to the top of that scale; the numbers themselves are
under the pointer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from fluoroscope.runs.number_format import cell_text

N_COLORS = 5
"""Rows that a strip can have: report.css knows a colour for each."""


@dataclass(frozen=True)
class StripRow:
    """One number a token; NaN where there is none."""

    name: str
    values: Sequence[float]
    full: float
    """The value, above 0, at which colour is strongest; what is above is no stronger."""

    unit: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.full) and self.full > 0):
            raise ValueError(f"full of row {self.name!r} must be above 0, got {self.full}.")


@dataclass(frozen=True)
class Strip:
    tokens: Sequence[str]
    """As text, which is escaped like all else here."""

    rows: Sequence[StripRow]
    title: str = ""
    prompt: str = ""
    """What stands before the tokens."""

    facts: Mapping[str, str | float | int] = field(default_factory=dict)
    verdict: tuple[Literal["pass", "fail"], str] | None = None
    """Whether what is claimed of the text is right, and in which words."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.tokens):
                raise ValueError(
                    f"Row {row.name!r} needs one value a token, got {len(row.values)} for "
                    f"{len(self.tokens)} tokens."
                )


def strips_html(strips: Sequence[Strip]) -> str:
    """A key to the rows, then the strips, side by side where the window is wide enough."""
    scales = _scales(strips)
    key = "".join(
        f'<li class="row-{number}"><i></i>{escape(name)}'
        f"<span>0 to {escape(_with_unit(full, unit))}</span></li>"
        for number, (name, (full, unit)) in enumerate(scales.items())
    )
    numbers = {name: number for number, name in enumerate(scales)}
    body = "".join(_strip_html(strip, numbers) for strip in strips)
    return f'<ul class="strip-key">{key}</ul><div class="strips">{body}</div>'


def _scales(strips: Sequence[Strip]) -> dict[str, tuple[float, str]]:
    found: dict[str, tuple[float, str]] = {}
    for row in (row for strip in strips for row in strip.rows):
        scale = (row.full, row.unit)
        if found.setdefault(row.name, scale) != scale:
            raise ValueError(
                f"Rows called {row.name!r} must have one scale, got {found[row.name]} and {scale}."
            )
    if len(found) > N_COLORS:
        raise ValueError(f"Strips have {N_COLORS} rows at most, got {', '.join(found)}.")
    return found


def _strip_html(strip: Strip, numbers: Mapping[str, int]) -> str:
    columns = "".join(_column_html(strip, place, numbers) for place in range(len(strip.tokens)))
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(cell_text(value))}</dd></div>"
        for name, value in strip.facts.items()
    )
    parts = [f"<h4>{escape(strip.title)}{_verdict_html(strip)}</h4>"]
    parts += [f'<dl class="card-numbers">{facts}</dl>'] if facts else []
    parts += [f'<p class="strip-prompt">{escape(strip.prompt)}</p>'] if strip.prompt else []
    parts += [f'<p class="strip-tokens">{columns}</p>']
    return f'<article class="strip">{"".join(parts)}</article>'


def _verdict_html(strip: Strip) -> str:
    if strip.verdict is None:
        return ""
    kind, words = strip.verdict
    sign = "\u2713" if kind == "pass" else "\u2715"
    return f' <span class="verdict {kind}">{sign} {escape(words)}</span>'


def _column_html(strip: Strip, place: int, numbers: Mapping[str, int]) -> str:
    said = [
        f"{row.name} {_with_unit(row.values[place], row.unit)}"
        for row in strip.rows
        if not math.isnan(row.values[place])
    ]
    cells = "".join(
        f'<i class="row-{numbers[row.name]}" style="--s:{_percent(row.values[place], row.full)}%">'
        "</i>"
        for row in strip.rows
    )
    title = escape("\n".join(said))
    return f'<span title="{title}"><b>{_text_html(strip.tokens[place])}</b>{cells}</span>'


def _percent(value: float, full: float) -> int:
    return 0 if math.isnan(value) else round(100 * min(max(value / full, 0.0), 1.0))


def _with_unit(value: float, unit: str) -> str:
    return f"{cell_text(float(value))} {unit}".rstrip()


def _text_html(text: str) -> str:
    return escape(text).replace("\n", '<i class="newline">\u21b5</i>')
