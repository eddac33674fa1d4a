"""The tables of a play: a row an attempt (`attempts`) and a row a game (`games`).

`attempts` has every reply that was asked for, also those that could not be read; rows that moved
the game on have `is_played`. Factors of the condition (bet_type, components, ...) are columns.
Where a round takes several decisions, the first has the bet, and the last what came of it.
"""

from collections.abc import Sequence

import polars as pl

from fluoroscope.studies.gambling.episodes import Episode

ATTEMPTS_SCHEMA = {
    "game": pl.String,
    "arm": pl.String,
    "condition": pl.String,
    "repetition": pl.Int64,
    "decision": pl.Int64,
    "round": pl.Int64,
    "balance": pl.Int64,
    "losses": pl.Int64,
    "last_won": pl.Boolean,
    "attempt": pl.Int64,
    "prompt": pl.String,
    "response": pl.String,
    "finish": pl.String,
    "n_tokens": pl.Int64,
    "n_edits": pl.Int64,
    # Seeds have 63 bits.
    "seed": pl.Int64,
    "grammar": pl.String,
    "rule": pl.String,
    "confidence": pl.Float64,
    "said": pl.Int64,
    # The target amount that the reply states.
    "goal": pl.Int64,
    "problem": pl.String,
    "adjustment": pl.String,
    "is_played": pl.Boolean,
    "action": pl.String,
    "amount": pl.Int64,
    "won": pl.Boolean,
    "payout": pl.Int64,
    "balance_after": pl.Int64,
    "outcome": pl.String,
}

GAMES_SCHEMA = {
    "game": pl.String,
    "arm": pl.String,
    "condition": pl.String,
    "repetition": pl.Int64,
    "outcome": pl.String,
    "final_balance": pl.Int64,
    "n_decisions": pl.Int64,
    "n_bets": pl.Int64,
    "n_skips": pl.Int64,
    "n_attempts": pl.Int64,
    "total_bet": pl.Int64,
    "total_paid": pl.Int64,
}

KEYS = ["arm", "condition", "repetition"]


def attempts_frame(episodes: Sequence[Episode]) -> pl.DataFrame:
    """A row for every attempt, in the order of games and of attempts, with the factors."""
    rows = [{**row, **_factors(episode)} for episode in episodes for row in episode.attempts]
    return pl.DataFrame(rows, schema=ATTEMPTS_SCHEMA | _factor_schema(episodes))


def games_frame(episodes: Sequence[Episode]) -> pl.DataFrame:
    """A row for every game, with the factors."""
    rows = []
    for episode in episodes:
        seat, state = episode.seat, episode.state
        rows.append(
            {
                "game": seat.key,
                "arm": seat.arm,
                "condition": seat.condition,
                "repetition": seat.repetition,
                "outcome": state.outcome,
                "final_balance": state.balance,
                "n_decisions": state.n_decisions + (state.outcome == "voluntary_stop"),
                "n_bets": len(state.rounds),
                "n_skips": state.skips,
                "n_attempts": len(episode.attempts),
                "total_bet": sum(one.bet for one in state.rounds),
                "total_paid": sum(one.payout for one in state.rounds),
                **_factors(episode),
            }
        )
    return pl.DataFrame(rows, schema=GAMES_SCHEMA | _factor_schema(episodes))


def played(attempts: pl.DataFrame) -> pl.DataFrame:
    """The decisions: the attempts that moved their game on."""
    return attempts.filter(pl.col("is_played"))


def _factors(episode: Episode) -> dict[str, str]:
    return episode.seat.game.factors


def _factor_schema(episodes: Sequence[Episode]) -> dict[str, type[pl.DataType]]:
    names = episodes[0].seat.game.factors if episodes else {}
    return dict.fromkeys(names, pl.String)
