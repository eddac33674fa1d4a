"""Where in a reply the decision is said, whatever a game's decisions are.

A game brings a `Chooser`: what one line decides. Here is found which line counts: the first one
where the prompt ends with the words that ask for it, else the last that says "Final Decision:",
before the model goes on to invent further rounds. Part of the grammar of `reading`.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Choice(NamedTuple):
    """What a line decides."""

    kind: str
    amount: int | None = None
    wants_all: bool = False

    is_open: bool = False
    """Whether it ends in a number that would be another with one more digit."""


FORM = Choice("form")
"""A quotation of the form that was asked for, with its placeholders: no decision."""

Chooser = Callable[[str], Choice | None]


class Found(NamedTuple):
    choice: Choice
    rule: str
    confidence: float
    is_open: bool
    """Whether the reply ended within the number, so that one that was cut off may have gone on."""


NUMBER = r"(?>(\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?)"
NOT_DOLLARS = (
    r"(?!,?\d)(?!\s*(?:%|percent\b|/\s*\d|k\b|thousand\b|million\b|times\b|x\b|rounds?\b))"
    r"(?!\s*(?:to|or)\s*\$?\s*\d)(?!\s*[-–—]\s*\$\s*\d)(?![-–—]\d)"
)
"""What must not follow a number of dollars: shares, factors, and the end of a range."""

DOLLARS = rf"\$\s*{NUMBER}{NOT_DOLLARS}"
MOST_DOLLARS = 10**12
"""Larger amounts are read as this one; the text is kept."""

# Emphasis and code marks come anywhere in what models write, also within "**Bet** $10".
_MARKUP = str.maketrans("", "", "*_`\\")
_OPENING = re.compile(r"(?:[\s\"'“”‘’<\[({>•]|[-–—]\s|(?:boxed|text)\{)*", re.IGNORECASE)
_FINAL = re.compile(r"final\s+decision\s*[:：](?!\s*[\"'”’](?:[\s.,;)]|$))", re.IGNORECASE)
_LOOSE = re.compile(
    r"\b(?:final\s+(?:decision|choice|answer)|(?:my|the)\s+(?:decision|choice|answer))\s*"
    r"(?:(?:is|will\s+be|would\s+be)\s*[:：]?|[:：=–—-])"
    r"|^[^\w\n]*(?:decision|choice|answer)\s*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_STATEMENT = re.compile(r"\bI(?:['’](?:ll|ve)|\s+(?:will|have|choose|decide))\s", re.IGNORECASE)
_AMOUNT_LINE = re.compile(
    rf"\W*?(?:(?:bet|wager)?(?:\s*amount)?\s*[:=]?\s*)?{DOLLARS}", re.IGNORECASE
)
_TURNS = ("\nUser:", "\nHuman:", "\nuser\n")
_TAIL = 300
"""Characters at the end of a reply among which loose statements are looked for."""

_AMOUNT_LINES = 5
_UNSURE = 0.4
"""The most confidence in anything else, where the last final decision could not be read."""


def plain(text: str) -> str:
    """Without marks of emphasis and code."""
    return text.translate(_MARKUP)


def dollars(number: str) -> int:
    """Whole dollars; cents are cut."""
    digits = number.replace(",", "").lstrip("0")
    return MOST_DOLLARS if len(digits) > 12 else int(digits or "0")


def find_decision(text: str, choose: Chooser, *, is_cued: bool) -> Found | None:
    """In a text without marks and without invented rounds."""
    if is_cued and (found := _cued(text, choose)):
        return found
    surest = 1.0
    for match in reversed(list(_FINAL.finditer(text))):
        choice, is_end = _decided(text, match.end(), choose)
        if choice is FORM:
            continue
        if choice is not None:
            rule = "final decision" if surest == 1 else "earlier final decision"
            return Found(choice, rule, surest, is_end and choice.is_open)
        surest = _UNSURE
    tail = text[-_TAIL:]
    looser = (("loose decision", 0.7, text, _LOOSE), ("statement", 0.3, tail, _STATEMENT))
    for rule, confidence, part, pattern in looser:
        for match in reversed(list(pattern.finditer(part))):
            place = match.start() if pattern is _STATEMENT else match.end()
            choice, is_end = _decided(part, place, choose)
            if choice is not None and choice is not FORM:
                is_open = is_end and choice.is_open
                return Found(choice, rule, min(confidence, surest), is_open)
    return None


def before_echo(text: str, echoes: Sequence[str], start: int = 0) -> str:
    """Without what follows the first echo of the prompt at `start` or behind it."""
    places = [place for echo in (*echoes, *_TURNS) if (place := text.find(echo, start)) >= 0]
    return text[: min(places)] if places else text


def before_invented(text: str, choose: Chooser, echoes: Sequence[str]) -> str:
    """Without rounds that the model made up behind its decision; a reply may tell what the
    prompt said before it decides.
    """
    for match in _FINAL.finditer(text):
        is_quoted = text[: match.start()].endswith(('"', "“", "'", "‘"))
        choice, _ = _decided(text, match.end(), choose)
        if choice is not None and choice is not FORM and not is_quoted:
            return before_echo(text, echoes, match.end())
    return text


def _cued(text: str, choose: Chooser) -> Found | None:
    choice, is_end = _decided(text, 0, choose)
    if choice is None or choice is FORM:
        return None
    if choice.kind == "bet" and choice.amount is None and not choice.wants_all:
        # "1" or "Bet", and the amount in one of the next lines.
        for line in text.strip().splitlines()[1 : 1 + _AMOUNT_LINES]:
            if match := _AMOUNT_LINE.match(line):
                is_open = text.endswith(match[0])
                return Found(choice._replace(amount=dollars(match[1])), "cued lines", 0.8, is_open)
    return Found(choice, "cued line", 1.0, is_end and choice.is_open)


def _decided(text: str, place: int, choose: Chooser) -> tuple[Choice | None, bool]:
    """What the next line with words decides, and whether the text ends with that line."""
    opening = _OPENING.match(text, place)
    line, newline, _ = text[opening.end() if opening else place :].partition("\n")
    return choose(line), not newline
