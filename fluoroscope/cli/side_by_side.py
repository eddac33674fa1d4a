"""Pairs of texts as two columns, or as JSON."""

from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fluoroscope.cli.steered_texts import Pair
from fluoroscope.models.generation import Generation

# What would move the cursor or ring a bell is shown as its picture; tabs and new lines stay.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}


def print_pairs(console: Console, heading: str, pairs: Sequence[Pair]) -> None:
    """A table for each prompt, with a row for each trial."""
    console.print(Text(heading), soft_wrap=True)
    for prompt, trials in groupby(pairs, key=lambda pair: pair.request.prompt):
        line = Text(f"\nPrompt: {_shown(str(prompt))}", style="bold")
        console.print(line, soft_wrap=True)
        console.print(side_by_side(list(trials)))


def side_by_side(pairs: Sequence[Pair]) -> Table:
    """Long texts are wrapped, and nothing is cut."""
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False, show_lines=len(pairs) > 1)
    for name in ("unsteered", "steered"):
        table.add_column(name, ratio=1, overflow="fold")
    for pair in pairs:
        table.add_row(*(_cell(one, pair.request.seed) for one in (pair.unsteered, pair.steered)))
    return table


def plain(pair: Pair) -> dict[str, object]:
    """JSON values of a pair."""
    return {
        "prompt": pair.request.prompt,
        "seed": pair.request.seed,
        "unsteered": _plain(pair.unsteered),
        "steered": _plain(pair.steered),
    }


def _cell(one: Generation, seed: int) -> Text:
    edits = f", {one.n_edits} edit{'s' * (one.n_edits != 1)}" if one.n_edits else ""
    ending = f"{one.finish} after {len(one.tokens)} tokens{edits}, seed {seed}"
    return Text(_shown(one.text.strip()) or "(no text)").append(f"\n[{ending}]", style="dim")


def _plain(one: Generation) -> dict[str, object]:
    return {
        "text": one.text,
        "finish": one.finish,
        "n_tokens": len(one.tokens),
        "n_edits": one.n_edits,
    }


def _shown(text: str) -> str:
    return text.translate(_VISIBLE)
