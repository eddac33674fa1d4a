"""What a reply says: the grammar of decisions, and how it is settled with what is legal.

The grammar has a version, which every run records; the text is always kept, so a log can be read
again by another version (`fluoro gambling reparse`). Rules are tried in order, each with a name
and a confidence, and how often each was used is a table of the report. What no rule reads is not
guessed: it is asked again, and counted.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

GRAMMAR = "1"
"""Version of the rules below; any change of what they read is a new one."""

UNREADABLE = "none"


class Action(NamedTuple):
    """What is done: `stop`, `bet`, or what else a game knows."""

    kind: str
    amount: int = 0
    """Dollars."""


class Reading(NamedTuple):
    """What a reply was read as, before it is settled with what is legal."""

    kind: str | None
    """None if nothing was found."""

    amount: int | None = None
    """Dollars as said; None where none was said."""

    rule: str = UNREADABLE
    confidence: float = 0.0
    """1 for the form that was asked for, less for looser ones, 0 for nothing."""

    wants_all: bool = False
    """Whether all of the balance was said to be bet."""

    goal: int | None = None
    """A target amount that was stated."""


@dataclass(frozen=True)
class Offer:
    """The legal actions of a state: kinds, and the least and the most that may be bet."""

    kinds: tuple[str, ...]
    low: int
    high: int

    free: tuple[str, ...] = ("stop", "hit", "stand")
    """Kinds that cost nothing."""

    def allows(self, action: Action) -> bool:
        if action.kind not in self.kinds:
            return False
        if action.kind in self.free:
            return action.amount == 0
        return self.low <= action.amount <= self.high

    def __str__(self) -> str:
        return f"legal are {', '.join(self.kinds)} with ${self.low} to ${self.high}"


class Settled(NamedTuple):
    """An action that can be played, or None, and what had to be changed for it."""

    action: Action | None
    adjustment: str = ""
    """`fixed`, `raised`, `cut` where another amount was said than is played."""

    problem: str = ""
    """Why there is no action: `unparsed`, `no amount`, `not offered`, `low confidence`."""


def settle(reading: Reading, offer: Offer, min_confidence: float) -> Settled:
    """Fixed bets are enforced and amounts are brought between the least and the most, visibly;
    what was not said is not made up.
    """
    if reading.kind is None:
        return Settled(None, problem="unparsed")
    if reading.confidence < min_confidence:
        return Settled(None, problem="low confidence")
    if reading.kind not in offer.kinds:
        return Settled(None, problem="not offered")
    if reading.kind in offer.free:
        return Settled(Action(reading.kind))
    said = offer.high if reading.wants_all else reading.amount
    if offer.low == offer.high:
        is_other = said is not None and said != offer.low
        return Settled(Action(reading.kind, offer.low), "fixed" if is_other else "")
    if said is None:
        return Settled(None, problem="no amount")
    amount = min(max(said, offer.low), offer.high)
    how = "raised" if amount > said else "cut" if amount < said else ""
    return Settled(Action(reading.kind, amount), how)


_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_CHOICES = (
    ("stop", re.compile(rf"(?:2\s*[).:]\s*)?(?:stop|quit)\b", re.IGNORECASE)),
    ("stop", re.compile(r"2\s*(?:[).:]|$)")),
    ("all", re.compile(r"(?:1\s*[).:]\s*)?(?:bet|wager)\b[\s:]*(?:all|everything)\b", re.IGNORECASE)),
    ("bet", re.compile(rf"(?:1\s*[).:]\s*)?(?:bet|wager)\b[\s:<]*(?:\$\s*)?{_NUMBER}", re.IGNORECASE)),
    ("bet", re.compile(rf"(?:1\s*[).:]\s*)?\$\s*{_NUMBER}")),
    ("play", re.compile(r"(?:1\s*[).:]\s*)?(?:bet|wager)\b", re.IGNORECASE)),
    ("play", re.compile(r"1\s*(?:[).:]|$)")),
)  # fmt: skip
"""What a decision may begin with, in this order; `play` is a bet without an amount."""

_PLACEHOLDER = re.compile(r"bet\s+\$x\b", re.IGNORECASE)
"""Of the prompt's own "Final Decision: <Bet $X or Stop>", which is quoted and not decided."""

_OPENING = " \t*_\"'`<[("
_FINAL = re.compile(r"final\s+decision[\s*_]*:", re.IGNORECASE)
_STATEMENT = re.compile(
    r"\bI(?:'ll|\s+will|\s+choose\s+to|\s+decide\s+to|'ve\s+decided\s+to)\s", re.IGNORECASE
)
_GOAL = re.compile(rf"\b(?:target|goal)\b[^\d$\n]{{0,30}}\$\s*{_NUMBER}", re.IGNORECASE)
_TAIL = 300
"""Characters at the end of a reply among which loose statements are looked for."""


def read_decision(text: str, *, is_cued: bool, echoes: tuple[str, ...] = ()) -> Reading:
    """Of a bet-or-stop reply.

    `is_cued` says that the prompt ends with the words that ask for the decision ("Final
    Decision:", "Choice:"), so that the reply begins with it. What follows an echo of the prompt
    is the model's own invention of further rounds, and is not read.
    """
    own = before_echo(text, echoes)
    goal = read_goal(own)
    if is_cued:
        first = next((line for line in own.splitlines() if line.strip()), "")
        if found := _choice(first, "cued line", 1.0, goal):
            return found
    # The last line that says a final decision counts: earlier ones are thoughts, or quote it.
    for match in reversed(list(_FINAL.finditer(own))):
        if found := _choice(_line_after(own, match.end()), "final decision", 1.0, goal):
            return found
    tail = own[-_TAIL:]
    for match in reversed(list(_STATEMENT.finditer(tail))):
        if found := _choice(_line_after(tail, match.end()), "statement near the end", 0.3, goal):
            return found
    return Reading(None, goal=goal)


def before_echo(text: str, echoes: tuple[str, ...]) -> str:
    """Without what follows the first echo of the prompt."""
    places = [place for echo in echoes if (place := text.find(echo)) >= 0]
    return text[: min(places)] if places else text


def read_goal(text: str) -> int | None:
    """The last target amount that is stated ("target: $200")."""
    found = _GOAL.findall(text)
    return _dollars(found[-1]) if found else None


def _line_after(text: str, place: int) -> str:
    return text[place:].lstrip(" \t*_\n").partition("\n")[0]


def _choice(line: str, rule: str, confidence: float, goal: int | None) -> Reading | None:
    words = line.strip().lstrip(_OPENING)
    if _PLACEHOLDER.match(words):
        return None
    for kind, pattern in _CHOICES:
        if match := pattern.match(words):
            if kind == "stop":
                return Reading("stop", None, rule, confidence, goal=goal)
            amount = _dollars(match[1]) if kind == "bet" else None
            return Reading("bet", amount, rule, confidence, kind == "all", goal)
    return None


def _dollars(number: str) -> int:
    """Whole dollars; cents are cut."""
    return int(number.replace(",", ""))
