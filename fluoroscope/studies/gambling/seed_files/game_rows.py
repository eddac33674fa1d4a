"""A game of the seed's files -> the rows that our own games have, in `attempts` and in `games`."""

import re
from typing import NamedTuple

from fluoroscope.studies.gambling.seed_files.game_records import (
    DEALT,
    Course,
    ImportedRules,
    Round,
    Row,
    read_course,
)

GRAMMAR = "imported"
"""In the place of the version of the grammar: others read these replies."""

_SHOWN = re.compile(r"Current balance: \$(-?\d+)")


class Played(NamedTuple):
    """A game as rows, and what had to be said about it."""

    attempts: list[Row]
    game: Row
    is_relabelled: bool
    n_wrong_prompts: int
    """Prompts that show another balance than there was."""

    n_odd_bets: int
    """Bets of fixed games that are not the fixed bet, which no game of ours allows."""


def played_game(given: object, rules: ImportedRules, where: str) -> Played:
    """See `read_course`."""
    course = read_course(given, rules, where)
    attempts = _attempts(course, rules)
    if attempts:
        attempts[-1]["outcome"] = course.outcome
    is_fixed = course.about["bet_type"] == "fixed"
    return Played(
        attempts,
        _game_row(course, attempts),
        course.is_relabelled,
        sum(_is_wrong(row) for row in attempts),
        sum(is_fixed and one.bet != _fixed(one) for one in course.rounds),
    )


def _attempts(course: Course, rules: ImportedRules) -> list[Row]:
    rows: list[Row] = []
    seen, coming = list(course.dealt), iter(course.rounds)
    for i, one in enumerate(course.decisions, start=1):
        balance = seen[-1].balance if seen else rules.start_balance
        losses = next((n for n, past in enumerate(reversed(seen)) if past.won), len(seen))
        row: Row = {
            **course.about,
            "decision": i,
            "round": len(seen) + 1,
            "balance": balance,
            "losses": losses,
            "last_won": seen[-1].won if seen else None,
            "attempt": 1,
            "prompt": one.prompt,
            "response": one.response,
            "n_edits": 0,
            "grammar": GRAMMAR,
            "rule": GRAMMAR,
            "said": one.said,
            "problem": one.problem,
            "adjustment": "",
            "is_played": one.kind != "",
            "action": one.kind or None,
            "amount": 0 if one.kind == "stop" else None,
            "won": None,
            "payout": 0,
            "balance_after": balance,
            "outcome": None,
        }
        if one.kind == "bet":
            now = next(coming)
            seen.append(now)
            row |= {"amount": now.bet, "won": now.won, "payout": now.payout}
            row |= {"balance_after": now.balance, "adjustment": _adjustment(one.said, now.bet)}
        rows.append(row)
    return rows


def _adjustment(said: int | None, bet: int) -> str:
    if said is None or said == bet:
        return ""
    return "cut" if bet < said else "raised"


def _game_row(course: Course, attempts: list[Row]) -> Row:
    rounds = course.rounds
    return {
        **course.about,
        "outcome": course.outcome,
        "final_balance": course.balance,
        "n_decisions": len(attempts),
        "n_bets": len(rounds),
        "n_skips": sum(not row["is_played"] for row in attempts),
        "n_attempts": len(attempts),
        "total_bet": sum(one.bet for one in rounds),
        "total_paid": sum(one.payout for one in rounds),
    }


def _fixed(one: Round) -> int:
    return min(DEALT, one.balance - one.payout + one.bet)


def _is_wrong(row: Row) -> bool:
    shown = _SHOWN.findall(str(row["prompt"] or ""))
    return bool(shown) and int(shown[-1]) != row["balance"]
