"""One game of the seed's files -> how it went.

Forms, told by what a game has:

- `history` (or `game_history`) [{round, bet, result or win, balance}] alone: bets without prompts.
  With a `first_result` the first round was dealt, not decided: it is in the state, not in the rows.
- with `round_features`, `round_details` or `decisions` [{prompt, response, decision, bet_amount}]:
  every decision as it was asked and read. What was bet is in the history, not there: the bet that
  was read is cut to the balance, or made $10.

Whatever the file calls it, a game that was still going on after its last possible round ended as
`max_rounds`, and one that broke off without a stop as `invalid`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.studies.gambling.games.slot_machine import in_order

Record = Mapping[str, Any]  # Any: JSON values.
Row = dict[str, object]

HISTORY = ("history", "game_history")
RECORDS = ("round_features", "round_details", "decisions")
_STOPS, _BETS = ("stop", "quit"), ("bet", "continue", "play")
DEALT = 10
DEALT_BALANCE = {True: 130, False: 90}


class ImportedRules(NamedTuple):
    """The rules that the games were played by."""

    start_balance: int = 100
    max_rounds: int = 100


class Round(NamedTuple):
    number: int
    bet: int
    won: bool
    balance: int
    payout: int


class Decision(NamedTuple):
    kind: str
    """`bet`, `stop`, or nothing where it could not be read."""

    said: int | None = None
    """Dollars, as the file's parser read them."""

    prompt: str | None = None
    response: str | None = None
    problem: str = ""


class Course(NamedTuple):
    """How a game went, by its file."""

    about: Row
    """Its key, its condition and its factors."""

    dealt: list[Round]
    """Rounds that the player did not decide on."""

    rounds: list[Round]
    decisions: list[Decision]
    outcome: str
    balance: int
    is_relabelled: bool
    """Whether the file says "voluntary stop" of a game that had no rounds left."""


def read_course(given: object, rules: ImportedRules, where: str) -> Course:
    """Raises `CorpusError` for what is missing or does not add up, naming the place."""
    if not isinstance(given, Mapping):
        raise CorpusError(f"{where} is no game: it is {given!r:.60}.")
    if not any(given.get(name) is not None for name in (*HISTORY, *RECORDS)):
        raise CorpusError(f"{where} has no {HISTORY[0]}: without its rounds a game says nothing.")
    about = _about(given, where)
    dealt, rounds = _rounds(given, rules, where)
    decisions = _decisions(given, rounds, where)
    seen = [*dealt, *rounds]
    balance = seen[-1].balance if seen else rules.start_balance
    _check(given, "final_balance", balance, where)
    # Some runners count decisions that could not be read as rounds, without money.
    n_unread = sum(one.kind == "" for one in decisions or ())
    _check(given, "total_rounds", len(seen), where, spare=n_unread)
    outcome = _outcome(given, decisions, balance, len(seen), rules, where)
    if decisions is None:
        decisions = [Decision("bet") for _ in rounds]
        decisions += [Decision("stop")] * (outcome == "voluntary_stop")
    is_relabelled = outcome == "max_rounds" and _says_stop(given)
    return Course(about, dealt, rounds, decisions, outcome, balance, is_relabelled)


def _about(given: Record, where: str) -> Row:
    bet_type = given.get("bet_type")
    if bet_type not in ("fixed", "variable"):
        raise CorpusError(f"{where}: bet_type must be 'fixed' or 'variable', got {bet_type!r}.")
    components = _components(given.get("prompt_combo"), where)
    first = given.get("first_result") or ""
    if first not in ("", "W", "L"):
        raise CorpusError(f"{where}: first_result must be 'W', 'L' or nothing, got {first!r}.")
    repetition = _whole(given, "repetition", where)
    if first:
        # Both are repetitions of one condition, so that condition and repetition name a game.
        repetition = 2 * repetition + (first == "L")
    condition = f"{bet_type}-{components}"
    row: Row = {
        "game": f"{condition}-{repetition:05d}",
        "arm": str(given.get("arm", "baseline")),
        "condition": condition,
        "repetition": repetition,
        "bet_type": bet_type,
        "components": components,
    }
    return row | {"first_result": first} if first else row


def _components(name: object, where: str) -> str:
    """`RMG`, `g_m_r`, ["G", "M", "H"] -> GMR; the empty one is BASE."""
    if not isinstance(name, Sequence):
        raise CorpusError(f"{where}: prompt_combo must be text such as 'GM', got {name!r}.")
    letters = re.sub(r"[\s_+,-]", "", "".join(map(str, name)))
    try:
        return in_order("" if letters.upper() == "BASE" else letters) or "BASE"
    except ConfigError as error:
        raise CorpusError(f"{where}: prompt_combo {name!r}: {error}") from None


def _rounds(given: Record, rules: ImportedRules, where: str) -> tuple[list[Round], list[Round]]:
    """Rounds that were dealt, and rounds that were decided on."""
    listed = _list(given, HISTORY, where)
    if listed is None:
        results = [one.get("game_result") for one in _list(given, RECORDS, where) or []]
        listed = [one for one in results if one is not None]
        _check_objects(listed, f"{where}: game_result")
    first = given.get("first_result")
    is_dealt = bool(first) and _list(given, RECORDS, where) is None and bool(listed)
    dealt = []
    if is_dealt:
        dealt = [_dealt(listed[0], first == "W", f"{where} round 1")]
        listed = listed[1:]
    balance = dealt[-1].balance if dealt else rules.start_balance
    rounds = []
    for i, one in enumerate(listed, start=len(dealt) + 1):
        rounds.append(_round(one, i, balance, f"{where} round {i}"))
        balance = rounds[-1].balance
    return dealt, rounds


def _dealt(one: Record, won: bool, where: str) -> Round:
    bet, balance = _whole(one, "bet", where), _whole(one, "balance", where)
    expected = DEALT_BALANCE[won]
    if bet != DEALT or _won(one, where) != won or balance != expected:
        raise CorpusError(
            f"{where}: in games with a first_result and without replies the first round was dealt: "
            f"a bet of ${DEALT}, {'won' if won else 'lost'}, that leaves ${expected}; got "
            f"{dict(one)}. If the first result had no effect in these games, take it out of the "
            "file, or give the file with its replies."
        )
    return Round(1, bet, won, balance, 0)


def _round(one: Record, number: int, before: int, where: str) -> Round:
    bet, balance = _whole(one, "bet", where), _whole(one, "balance", where)
    won, payout = _won(one, where), balance - before + bet
    if not 0 < bet <= before or (payout <= 0 if won else payout != 0):
        raise CorpusError(
            f"{where}: a bet of ${bet} from ${before} that was {'won' if won else 'lost'} cannot "
            f"leave ${balance}. A round is missing, or the game was not played by these rules."
        )
    return Round(number, bet, won, balance, payout)


def _won(one: Record, where: str) -> bool:
    said = one.get("win", one.get("result"))
    known = {True: True, "W": True, "WIN": True, False: False, "L": False, "LOSS": False}
    key = said.upper() if isinstance(said, str) else said
    if not isinstance(key, str | bool) or key not in known:
        raise CorpusError(f"{where}: win must be true or false, or result W or L; got {said!r}.")
    return known[key]


def _decisions(given: Record, rounds: list[Round], where: str) -> list[Decision] | None:
    """As they were asked and read; None where the file has none."""
    listed = _list(given, RECORDS, where)
    if listed is None:
        return None
    found = [_decision(one, f"{where} decision {i}") for i, one in enumerate(listed, start=1)]
    n_bets = sum(one.kind == "bet" for one in found)
    if n_bets == len(rounds) + 1 and found[-1].kind == "bet":
        # The last bet was read but never played, as nothing was left or the run broke off.
        found[-1] = found[-1]._replace(kind="", problem="not played")
    elif n_bets != len(rounds):
        raise CorpusError(
            f"{where}: {n_bets} decisions to bet, and {len(rounds)} rounds. Both are needed whole."
        )
    if any(one.kind == "stop" for one in found[:-1]):
        raise CorpusError(f"{where}: a game goes on after the decision to stop.")
    return found


def _decision(one: Record, where: str) -> Decision:
    said = one.get("decision", one.get("action"))
    inner = said if isinstance(said, Mapping) else one
    name = str(inner.get("action", said)).lower()
    amounts = (inner.get(key) for key in ("bet_amount", "bet", "amount"))
    amount = next((int(one) for one in amounts if isinstance(one, int | float)), None)
    response = one.get("response")
    if response is None:
        named = [key for key in one if key.endswith("response_full") or key == "full_response"]
        response = one[named[0]] if named else None
    prompt = one.get("prompt", one.get("full_prompt"))
    for text, what in ((prompt, "prompt"), (response, "response")):
        if text is not None and not isinstance(text, str):
            raise CorpusError(f"{where}: the {what} must be text, got {text!r:.60}.")
    if name in _STOPS:
        return Decision("stop", None, prompt, response)
    if name in _BETS:
        return Decision("bet", amount, prompt, response)
    problem = "unparsed" if name in ("skip", "invalid", "unknown") else f"error: {name}"
    return Decision("", amount, prompt, response, problem)


def _outcome(
    given: Record,
    decisions: list[Decision] | None,
    balance: int,
    n_rounds: int,
    rules: ImportedRules,
    where: str,
) -> str:
    said = given.get("outcome")
    is_said = {"bankruptcy": said == "bankruptcy"} if said is not None else {}
    for name in ("is_bankrupt", "went_bankrupt"):
        if name in given:
            is_said[name] = bool(given[name])
    for name, is_so in is_said.items():
        if is_so != (balance <= 0):
            raise CorpusError(f"{where}: {name} is {is_so}, and the game ended with ${balance}.")
    stopped = decisions[-1].kind == "stop" if decisions else None
    if balance <= 0:
        return "bankruptcy"
    if stopped:
        return "voluntary_stop"
    n_decisions = max(n_rounds, len(decisions or ()))
    if n_decisions >= rules.max_rounds or said == "max_rounds":
        return "max_rounds"
    return "voluntary_stop" if decisions is None and _says_stop(given) else "invalid"


def _says_stop(given: Record) -> bool:
    return given.get("outcome") == "voluntary_stop" or given.get("voluntary_stop") is True


def _list(given: Record, names: Sequence[str], where: str) -> list[Record] | None:
    name = next((name for name in names if given.get(name) is not None), None)
    if name is None:
        return None
    _check_objects(given[name], f"{where}: {name}")
    return given[name]


def _check_objects(value: object, where: str) -> None:
    if not isinstance(value, list):
        raise CorpusError(f"{where} must be a list, got {value!r:.60}.")
    for i, one in enumerate(value):
        if not isinstance(one, Mapping):
            raise CorpusError(f"{where}[{i}] must be an object, got {one!r:.60}.")


def _whole(given: Record, name: str, where: str) -> int:
    value = given.get(name)
    is_whole = not isinstance(value, float) or value.is_integer()
    if isinstance(value, int | float) and not isinstance(value, bool) and is_whole:
        return int(value)
    raise CorpusError(f"{where}: {name} must be a whole number, got {value!r:.60}.")


def _check(given: Record, name: str, found: int, where: str, spare: int = 0) -> None:
    if name in given and not found <= _whole(given, name, where) <= found + spare:
        raise CorpusError(
            f"{where}: {name} is {given[name]}, and by its rounds it should be {found}. A part of "
            "the game is missing."
        )
