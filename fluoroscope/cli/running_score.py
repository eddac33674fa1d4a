"""How a generation with its running score looks: tokens on the colour of their score, and lines
and tables of the numbers beside them.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from fluoroscope.plots.style import DIVERGING, INK, PAPER

if TYPE_CHECKING:
    from fluoroscope.studies.hallucination.online.watcher import Watched

MAX_ROWS = 40
"""Tokens in the table; of a longer answer those at which the score moved most."""

_PUSHES, _LEAST = 2, 0.005
_BARS = "▁▂▃▄▅▆▇█"
_BRIGHT = 140

# What would move the cursor or ring a bell is shown as its picture.
_VISIBLE = {code: 0x2400 + code for code in range(32)} | dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)
_LINES = {code: picture for code, picture in _VISIBLE.items() if chr(code) not in "\t\n"}


def show_live(console: Console, prompt: str, tokens: "Iterator[Watched]") -> "list[Watched]":
    """The text as it grows, with the score below it."""
    found: list[Watched] = []
    with Live(console=console, auto_refresh=False) as live:
        for one in tokens:
            found.append(one)
            lines = Group(_text(prompt, found), _score_line(found, console.width))
            live.update(lines, refresh=True)
    return found


def show_lines(console: Console, prompt: str, tokens: "Iterator[Watched]") -> "list[Watched]":
    """A line a token, for a file or a program."""
    console.print(Text(f"Prompt: {shown(prompt)}"), soft_wrap=True)
    found: list[Watched] = []
    for one in tokens:
        found.append(one)
        entropy = f"entropy {one.entropy:5.2f}" if one.token is not None else " " * 13
        said = shown(one.text) if one.token is not None else "(before the first token)"
        line = f"{one.score:.2f}  {entropy}  tracks {one.n_tracks:3d}  {said}"
        console.print(Text(line), soft_wrap=True)
    return found


def score_table(watched: "Sequence[Watched]") -> Table:
    """A row a token: its score, and what pushed it there."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("token", overflow="fold")
    for name in ("score", "entropy", "tracks", "by uncertainty", "by tracks"):
        table.add_column(name, justify="right")
    table.add_column("what pushes the log-odds most")
    for number in _rows(watched):
        one = watched[number]
        token = Text(shown(one.text), _ground(one.score))
        table.add_row(
            token if one.token is not None else Text("(before)", "dim"),
            f"{one.score:.2f}",
            f"{one.entropy:.2f}" if one.token is not None else "",
            str(one.n_tracks),
            *(f"{push:+.2f}" for push in one.by_kind),
            _pushes(one),
        )
    return table


def is_cut(watched: "Sequence[Watched]") -> bool:
    """Whether `score_table` leaves out tokens."""
    return len(watched) > MAX_ROWS


def plain(one: "Watched") -> dict[str, object]:
    """JSON values of a token."""
    return {
        "n_tokens": one.n_tokens,
        "token": one.token,
        "text": one.text,
        "score": one.score,
        "logprob": None if math.isnan(one.logprob) else one.logprob,
        "entropy": None if one.token is None else one.entropy,
        "n_tracks": one.n_tracks,
        "margin": one.margin,
        "by_uncertainty": one.by_kind[0],
        "by_tracks": one.by_kind[1],
        "pushes": {name: push for name, push in one.pushes.items() if push},
    }


def shown(text: str) -> str:
    """On one line, whatever is in it."""
    return text.translate(_VISIBLE)


def _text(prompt: str, watched: "Sequence[Watched]") -> Text:
    text = Text().append(prompt.translate(_LINES), "dim")
    for one in watched:
        # New lines stay: a ground over them would run to the end of the line.
        said = one.text.translate(_LINES)
        text.append(said, _ground(one.score) if said.strip() else None)
    return text


def _score_line(watched: "Sequence[Watched]", width: int) -> Text:
    last = watched[-1]
    bars = [_BARS[min(int(one.score * len(_BARS)), len(_BARS) - 1)] for one in watched]
    line = Text(f"score {last.score:.2f} ", "bold")
    for bar, one in list(zip(bars, watched, strict=True))[-max(width - 12, 8) :]:
        line.append(bar, Style(color=_color(one.score)))
    return line


def _rows(watched: "Sequence[Watched]") -> list[int]:
    if not is_cut(watched):
        return list(range(len(watched)))
    moves = [abs(one.score - before.score) for before, one in pairwise(watched)]
    most = sorted(range(1, len(watched)), key=lambda number: -moves[number - 1])
    return sorted([0, *most[: MAX_ROWS - 1]])


def _pushes(one: "Watched") -> str:
    pushed = ((name, push) for name, push in one.pushes.items() if abs(push) >= _LEAST)
    return "\n".join(f"{push:+.2f} {name}" for name, push in islice(pushed, _PUSHES))


def _ground(score: float) -> Style:
    color = _color(score)
    red, green, blue = color.get_truecolor()
    is_bright = 0.3 * red + 0.6 * green + 0.1 * blue > _BRIGHT
    return Style(color=INK if is_bright else PAPER, bgcolor=color)


def _color(score: float) -> Color:
    """Along the ramp of figures, from what is surely true to what is surely made up."""
    place = min(max(score, 0.0), 1.0) * (len(DIVERGING) - 1)
    low = min(int(place), len(DIVERGING) - 2)
    ends = [Color.parse(DIVERGING[number]).get_truecolor() for number in (low, low + 1)]
    share = place - low
    mixed = (round(a + share * (b - a)) for a, b in zip(*ends, strict=True))
    return Color.from_triplet(ColorTriplet(*mixed))
