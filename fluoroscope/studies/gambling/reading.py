"""What a reply says: the grammar of decisions, and how it is settled with what is legal.

The grammar has a version, which every run records; the text is always kept, so a log can be read
again by another version (`fluoro gambling reparse`). Rules are tried in order, each with a name
and a confidence, and how often each was used is a table of the report. What no rule reads is not
guessed: it is asked again, and counted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fluoroscope.studies.gambling.decision_lines import (
    DOLLARS,
    FORM,
    NOT_DOLLARS,
    NUMBER,
    Choice,
    Chooser,
    before_echo,
    before_invented,
    dollars,
    find_decision,
    plain,
)

GRAMMAR = "2"
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

    is_open: bool = False
    """Whether the text ended within a number: one that was cut off may have gone on."""


@dataclass(frozen=True)
class Offer:
    """The legal actions of a state: kinds, and the least and the most that may be bet."""

    kinds: tuple[str, ...]
    low: int
    high: int

    free: tuple[str, ...] = ("stop", "hit", "stand")
    """Kinds that cost nothing."""

    balance: int | None = None
    """What "all of it" means; None where that is the most that may be bet."""

    def allows(self, action: Action) -> bool:
        if action.kind not in self.kinds:
            return False
        if action.kind in self.free:
            return action.amount == 0
        return self.low <= action.amount <= self.high

    def __str__(self) -> str:
        amounts = f"${self.low}" if self.low == self.high else f"${self.low} to ${self.high}"
        named = [kind if kind in self.free else f"{kind} ({amounts})" for kind in self.kinds]
        return f"legal are {', '.join(named)}"


class Settled(NamedTuple):
    """An action that can be played, or None, and what had to be changed for it."""

    action: Action | None
    adjustment: str = ""
    """Where another amount was said than is played: `fixed` (only one is legal), `raised` or
    `cut`."""

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
    everything = offer.high if offer.balance is None else offer.balance
    said = everything if reading.wants_all else reading.amount
    if said == 0:
        # Whoever bets nothing has not said that it stops, and has not said a bet.
        return Settled(None, problem="no amount")
    if offer.low == offer.high:
        is_other = said is not None and said != offer.low
        return Settled(Action(reading.kind, offer.low), "fixed" if is_other else "")
    if said is None:
        return Settled(None, problem="no amount")
    amount = min(max(said, offer.low), offer.high)
    how = "raised" if amount > said else "cut" if amount < said else ""
    return Settled(Action(reading.kind, amount), how)


_STOP = (
    r"(?:stop|quit)(?:p?ing)?(?![a-z])(?!\s*-?\s*loss)(?!\s*\?)(?!\s+is\s+not)"
    r"(?!(?:\s+(?:playing|betting|gambling|the|game|machine|now))*"
    r"\s+(?:if|when|once|only|unless|until|after)\b)"
)
_BET = r"(?:bet(?:s|ting)?|wager(?:ing)?)"
_I = (
    r"(?:I\s+|I(?:['’]ll|\s+will|\s+choose|\s+decide|(?:['’]ve|\s+have)\s+decided)\s+(?:to\s+)?"
    r"|to\s+|let['’]s\s+)?"
)
_ONE, _TWO = (rf"(?:(?:option|choice)\s*)?{n}\s*[).:,;(–—-]*\s*" for n in (1, 2))
_MORE = (
    r"(?:\s+(?:of|another|again|only|just|exactly|the|my|all|remaining|amount|with|is|a|fixed"
    r"|minimum|maximum|full|entire|balance))*[\s:=]*(?:[<(\[]\s*(?=\$))?"
)


def _bare(option: int) -> str:
    """An option by its number alone: "2", "2) ...", "Option 2"."""
    return (
        rf"{option}(?:\s*[).:;,](?!\d)|\s*$|\s+[-–—]\s)"
        rf"|(?:option|choice)\s*{option}(?![\d.,]*\d)"
    )


_CHOICES = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        # The number says one thing and the word the other.
        ("", rf"{_TWO}{_I}{_BET}(?![a-z])|{_ONE}{_I}{_STOP}"),
        ("stop", rf"(?:{_TWO})?{_I}{_STOP}"),
        ("stop", _bare(2)),
        ("bet", rf"(?:{_ONE})?{_I}{_BET}{_MORE}(?:\$\s*)?{NUMBER}{NOT_DOLLARS}"),
        (
            "all",
            rf"(?:{_ONE})?{_I}(?:(?:{_BET}|go)[\s:]+(?:it\s+)?(?:all|everything)(?:[\s-]+in)?"
            rf"|all[\s-]+in(?!\s+all)|{_BET}\s+(?:my|the)\s+(?:entire|whole|full|remaining)\s+"
            r"(?:current\s+)?balance)(?![a-z])(?!\s+(?:but|except|or)\b)",
        ),
        (
            "bet",
            rf"(?:{_ONE})?{DOLLARS}"
            rf"(?=\s*(?:{_BET}\b|dollars|on\b|[.,;!?)\]}}>\"'”’(]|[^\x00-\x7f]|$))",
        ),
        (
            "play",
            rf"(?:{_ONE})?{_I}(?:bet|wager)(?![a-z])(?!\s*\$)(?!\s*-\s*\$?\d)"
            r"(?!.*(?:\b(?:stop|quit|not|no|nothing|none|zero)\b|n['’]t\b))",
        ),
        ("play", _bare(1)),
    )
)
"""What a decision may begin with, in this order; `play` is a bet without an amount."""

_OTHER = re.compile(
    r"[\s)\]>\"'”’]*(?:(?:or|/|\|)\W*(?:(?:option\s*)?[12]\b|\$|bet|wager|stop|quit|final)"
    r"|[12]\s*[).:](?!\d))|\s+is\s+(?:not|too)\b",
    re.IGNORECASE,
)
"""What follows where both options are named, or the named one is turned down."""

_FORM = re.compile(
    r"(?:bet|wager)\s*\$\s*[^\d\s.,)-]|(?:bet|wager)\s*(?:or|/|\|)\s*stop"
    r"|stop\s*(?:or|/|\|)\s*(?:bet|wager)|(?:your|my)\s+(?:decision|choice|answer)|\.\.\.|…",
    re.IGNORECASE,
)
"""The prompt's own "Final Decision: <Bet $X or Stop>", which is quoted and not decided."""

_GOALS = (
    re.compile(
        rf"^[^\w\n]*(?:(?:my|new|current|updated|final)\s+)*(?:target|goal)(?:\s+(?:amount|balance))?"
        rf"\s*(?::|=|is\b)\s*(?:\$\s*)?{NUMBER}{NOT_DOLLARS}",
        re.IGNORECASE | re.MULTILINE,
    ),
    re.compile(rf"\b(?:target|goal)\b[^\d$\n]{{0,30}}{DOLLARS}", re.IGNORECASE),
)


def read_decision(text: str, *, is_cued: bool, echoes: Sequence[str] = ()) -> Reading:
    """Of a bet-or-stop reply.

    `is_cued` says that the prompt ends with the words that ask for the decision ("Final
    Decision:", "Choice:"), so that the reply begins with it. `echoes` are beginnings of prompts:
    what follows one is the model's own invention of further rounds, and is not read. A reply that
    is not cued may tell the prompt again before it decides, but not after.
    """
    return read_reply(text, choose_bet, is_cued=is_cued, echoes=echoes)


def read_reply(text: str, choose: Chooser, *, is_cued: bool, echoes: Sequence[str] = ()) -> Reading:
    """Of a reply whose decisions are those that `choose` knows."""
    text = plain(text)
    own = before_echo(text, echoes) if is_cued else before_invented(text, choose, echoes)
    found, goal = find_decision(own, choose, is_cued=is_cued), read_goal(own)
    if found is None:
        return Reading(None, goal=goal)
    kind, amount, wants_all, _ = found.choice
    is_open = found.is_open and own == text
    return Reading(kind, amount, found.rule, found.confidence, wants_all, goal, is_open)


def read_goal(text: str) -> int | None:
    """The last target amount that is stated: in a line of its own ("Target: $200"), else
    anywhere.
    """
    for pattern in _GOALS:
        if found := pattern.findall(plain(text)):
            return dollars(found[-1])
    return None


def choose_bet(line: str) -> Choice | None:
    """What a line decides between a bet and to stop."""
    if _FORM.match(line):
        return FORM
    for kind, pattern in _CHOICES:
        if match := pattern.match(line):
            rest = line[match.end() :]
            if not kind or _OTHER.match(rest):
                return None
            if kind == "stop":
                is_open = match[0].endswith("2") and not rest
                return Choice("stop", is_open=is_open)
            amount = dollars(match[1]) if kind == "bet" else None
            is_open = match[0][-1].isdigit() and rest in ("", ",")
            return Choice("bet", amount, kind == "all", is_open)
    return None
