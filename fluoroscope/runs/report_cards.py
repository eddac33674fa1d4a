"""Identity cards: what is known of one thing, with the texts in which it stands out.

A context is a row of tokens, each on a ground whose strength is its activation; the one
token the context is about is ringed. A card adds numbers and two lists of signed effects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import polars

from fluoroscope.runs.number_format import cell_text, column_texts

Effect = tuple[str, float | int]

# Marks by which tokenizers write a space, a newline and a tab.
_SPELLINGS = {"\u2581": " ", "\u0120": " ", "\u010a": "\n", "\u0109": "\t"}

SHOWN_CONTEXTS = 5
"""Contexts of a card that are seen at once; the rest unfold."""


@dataclass(frozen=True)
class Context:
    tokens: Sequence[str]
    """Pieces as the tokenizer spells them; space marks are turned into spaces."""
    activations: Sequence[float]
    """One for each token; zero and below leave the token plain."""
    marked: int | None = None
    """Index of the token that the context is shown for."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.activations):
            raise ValueError(
                "A context needs one activation a token, got "
                f"{len(self.tokens)} tokens and {len(self.activations)} activations."
            )


@dataclass(frozen=True)
class FeatureCard:
    title: str
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    contexts: Sequence[Context] = ()
    promoted: Sequence[Effect] = ()
    """Tokens whose logit it raises most, with the effect."""
    suppressed: Sequence[Effect] = ()
    """Tokens whose logit it lowers most, with the (negative) effect."""
    note: str = ""


def card_html(card: FeatureCard) -> str:
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(cell_text(value))}</dd></div>"
        for name, value in card.numbers.items()
    )
    parts = [f"<h4>{escape(card.title)}</h4>"]
    parts += [f'<dl class="card-numbers">{facts}</dl>'] if facts else []
    parts += [f'<p class="card-note">{escape(card.note)}</p>'] if card.note else []
    parts += [_effects_html(card)] if card.promoted or card.suppressed else []
    parts += [contexts_html(card.contexts)] if card.contexts else []
    return f'<article class="card">{"".join(parts)}</article>'


def contexts_html(contexts: Sequence[Context], shown: int = SHOWN_CONTEXTS) -> str:
    """The contexts one below the other, on one scale of colour; those after `shown` unfold."""
    largest = max((max(c.activations, default=0.0) for c in contexts), default=0.0)
    peaks = column_texts(
        polars.Series([_peak(context) for context in contexts], dtype=polars.Float64)
    )
    lines = [
        _context_html(context, largest, peak) for context, peak in zip(contexts, peaks, strict=True)
    ]
    first = f'<ol class="contexts">{"".join(lines[:shown])}</ol>'
    if len(lines) <= shown:
        return first
    rest = f'<ol class="contexts">{"".join(lines[shown:])}</ol>'
    return f"{first}<details><summary>{len(lines) - shown} more</summary>{rest}</details>"


def _peak(context: Context) -> float:
    if context.marked is not None:
        return float(context.activations[context.marked])
    return float(max(context.activations, default=0.0))


def _context_html(context: Context, largest: float, peak: str) -> str:
    texts = [token_text(token) for token in context.tokens]
    if texts:
        texts[0] = texts[0].lstrip(" ") or texts[0]
    tokens = "".join(
        _token_html(text, activation, largest, is_marked=i == context.marked)
        for i, (text, activation) in enumerate(zip(texts, context.activations, strict=True))
    )
    return f'<li><span class="peak">{escape(peak)}</span><p>{tokens}</p></li>'


def _token_html(token: str, activation: float, largest: float, *, is_marked: bool) -> str:
    text = escape(token).replace("\n", '<i class="newline">\u21b5</i>')
    strength = max(activation, 0.0) / largest if largest > 0 else 0.0
    if strength < 0.01 and not is_marked:
        return f"<span>{text}</span>"
    kind = ' class="marked"' if is_marked else ""
    title = escape(cell_text(float(activation)))
    return f'<span{kind} style="--s:{100 * strength:.0f}%" title="{title}">{text}</span>'


def token_text(token: str) -> str:
    """A tokenizer's piece as plain text."""
    return "".join(_SPELLINGS.get(character, character) for character in token)


def _effects_html(card: FeatureCard) -> str:
    sizes = [abs(effect) for _, effect in (*card.promoted, *card.suppressed)]
    largest = max(sizes) or 1.0
    columns = [("raises", "up", card.promoted), ("lowers", "down", card.suppressed)]
    parts = [
        f'<div class="effects {kind}"><h5>{title}</h5>{_effect_rows(effects, largest)}</div>'
        for title, kind, effects in columns
        if effects
    ]
    return f'<div class="effect-pair">{"".join(parts)}</div>'


def _effect_rows(effects: Sequence[Effect], largest: float) -> str:
    texts = column_texts(polars.Series([float(effect) for _, effect in effects]))
    rows = "".join(
        f'<li style="--s:{100 * abs(effect) / largest:.0f}%"><code>{_visible(token)}</code>'
        f"<span>{escape(text)}</span></li>"
        for (token, effect), text in zip(effects, texts, strict=True)
    )
    return f"<ul>{rows}</ul>"


def _visible(token: str) -> str:
    # A leading space tells " word" from the middle of one; a faint dot shows it.
    text = token_text(token).replace("\n", "\u21b5").replace("\t", "\u21e5")
    n_spaces = len(text) - len(text.lstrip(" "))
    dots = "\u00b7" * n_spaces
    return f'<i class="space">{dots}</i>{escape(text[n_spaces:])}'
