"""What replies say in games with other decisions than bet or stop; part of the same grammar."""

import re
from collections.abc import Sequence

from fluoroscope.studies.gambling.decision_lines import DOLLARS, FORM, Choice, Chooser, dollars
from fluoroscope.studies.gambling.reading import Reading, read_reply

STOP_OPTION = 1
"""The option that takes the money and ends the game."""

_I = r"(?:I(?:['’]ll|\s+will|\s+choose|\s+decide)?\s+(?:to\s+)?|to\s+)?"
_BEFORE = (
    rf"(?:{_I}(?:(?:bet|invest|stake|put|amount)\b[\s:]*)?(?P<before>{DOLLARS})[\s,;:)\]–—-]*"
    r"(?:(?:on|in|into|for|to|and|bet|stake|dollars)\s+)*)?"
)
_AFTER = (
    r"(?:[\s,;:(–—-]*(?:(?:with|for|at|bet|betting|stake|investing|of|a)\s+)*"
    rf"(?P<after>{DOLLARS}))?"
)
_OPTION = re.compile(
    rf"{_BEFORE}{_I}(?:(?:choose|take|pick|go\s+with)\s+)?"
    rf"option\s*[:#]?\s*(?P<option>\d+)(?![\d%]|\.\d)[)\]]?{_AFTER}",
    re.IGNORECASE,
)
_BARE = re.compile(rf"(?P<option>\d)(?:\s*[).:,](?!\d)|\s*$){_AFTER}", re.IGNORECASE)
_STOP = re.compile(rf"{_I}(?:stop|quit)(?![a-z])(?!\s*-?\s*loss)", re.IGNORECASE)
_OTHER_OPTION = re.compile(r"[\s)\]\"'”’]*(?:or|/|\||and)\W*(?:option\b|\d|\$)", re.IGNORECASE)
_OPTION_FORM = re.compile(
    r"(?:\$\s*(?:amt|amount|x)\b[\s,\])>]*)?option\s*[<\[(]*(?:k|x|n|number)\b"
    r"|\$\s*(?:amt|amount|x)\b|\.\.\.|…",
    re.IGNORECASE,
)

_HANDS = (
    ("hit", re.compile(rf"(?:(?:option\s*)?1\s*[).:,-]?\s*)?{_I}hit(?![a-z])", re.IGNORECASE)),
    (
        "stand",
        re.compile(
            rf"(?:(?:option\s*)?2\s*[).:,-]?\s*)?{_I}(?:stand|stay|stick)(?![a-z])", re.IGNORECASE
        ),
    ),
    ("hit", re.compile(r"(?:option\s*1\b|1\s*(?:[).:](?!\d)|$))", re.IGNORECASE)),
    ("stand", re.compile(r"(?:option\s*2\b|2\s*(?:[).:](?!\d)|$))", re.IGNORECASE)),
)
_CONTRADICTION = re.compile(r"1\s*[).:]?\s*stand\b|2\s*[).:]?\s*hit\b", re.IGNORECASE)
_OTHER_HAND = re.compile(
    r"[\s\"'”’]*(?:or|/|\||,?\s*then)\W*(?:hit|stand)|[\s\"'”’]*[12]\s*[).:]", re.IGNORECASE
)
_HAND_FORM = re.compile(r"(?:hit|stand)\s*(?:or|/|\|)\s*(?:hit|stand)|\.\.\.|…", re.IGNORECASE)


def read_option(text: str, n_options: int, echoes: Sequence[str] = ()) -> Reading:
    """Of "Final Decision: [$amount,] Option k": `stop` for option 1, else `option k`."""
    return read_reply(text, _option_chooser(n_options), is_cued=False, echoes=echoes)


def read_hand(text: str, echoes: Sequence[str] = ()) -> Reading:
    """Of "Final Decision: Hit" or "Stand"."""
    return read_reply(text, choose_hand, is_cued=False, echoes=echoes)


def choose_hand(line: str) -> Choice | None:
    """What a line decides between another card and none."""
    if _HAND_FORM.match(line):
        return FORM
    if _CONTRADICTION.match(line):
        return None
    for kind, pattern in _HANDS:
        if match := pattern.match(line):
            return None if _OTHER_HAND.match(line, match.end()) else Choice(kind)
    return None


def _option_chooser(n_options: int) -> Chooser:
    def choose(line: str) -> Choice | None:
        if _OPTION_FORM.match(line):
            return FORM
        if _STOP.match(line):
            return Choice("stop")
        match = _OPTION.match(line) or _BARE.match(line)
        if match is None or _OTHER_OPTION.match(line, match.end()):
            return None
        # One with more digits than any option has is none of them.
        option = dollars(match["option"])
        if not 1 <= option <= n_options:
            return None
        if option == STOP_OPTION:
            return Choice("stop")
        said = match.groupdict().get("before") or match["after"]
        amount = dollars(re.sub(r"[^\d.,]", "", said).split(".")[0]) if said else None
        is_open = match.end() == len(line) and match[0][-1].isdigit()
        return Choice(f"option {option}", amount, is_open=is_open and bool(match["after"]))

    return choose
