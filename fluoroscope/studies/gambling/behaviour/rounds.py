"""The rounds of all games: what was bet of how much, what came of it, and what was done next."""

import polars as pl

from fluoroscope.studies.gambling.behaviour.frames import GAME, need
from fluoroscope.studies.gambling.logs import played

_NEEDED = [
    *GAME, "condition", "repetition", "decision", "round", "balance", "is_played", "action",
    "amount", "won", "payout",
]  # fmt: skip


def bets(attempts: pl.DataFrame) -> pl.DataFrame:
    """A row a bet that was settled, by game and round.

    Columns: `balance` before it, `bet`, `ratio` of the two, `won`, `streak` (rounds in a row that
    went as this one, with it), and `next`: "bet", "stop", or null where no decision followed that
    could be read (bankruptcy, the last round, a game that ended as invalid), with `next_bet` and
    `next_ratio`. `won` is null where the bet came back, which is neither a win nor a loss.
    Decisions that could not be read are passed over: no money moved in them.
    """
    need(attempts, _NEEDED, "The rounds of games")
    done = played(attempts).sort(*GAME, "decision")
    is_stop = pl.col("action") == "stop"
    stopped = done.filter(is_stop).select(*GAME, is_stopped=True)
    # A round may take several decisions (cards), of which the last one knows how it went.
    rounds = (
        done.filter(~is_stop)
        .group_by(*GAME, "round", maintain_order=True)
        .agg(
            pl.col("condition", "repetition", "balance").first(),
            bet=pl.col("amount").sum(),
            won=pl.col("won").drop_nulls().last(),
            payout=pl.col("payout").sum(),
        )
        # Not a bet on cards that were never played to the end.
        .filter(pl.col("won").is_not_null() | (pl.col("payout") > 0))
        .with_columns(ratio=pl.col("bet") / pl.col("balance"))
    )
    turns = pl.col("won").ne_missing(pl.col("won").shift(1).over(GAME))
    following = pl.col("bet", "ratio").shift(-1).over(GAME).name.prefix("next_")
    is_last_stop = pl.col("next_bet").is_null() & pl.col("is_stopped").fill_null(value=False)
    return (
        rounds.join(stopped, on=GAME, how="left", maintain_order="left")
        .with_columns(turns.cast(pl.Int64).cum_sum().over(GAME).alias("run"), following)
        .with_columns(
            streak=pl.int_range(1, pl.len() + 1).over(*GAME, "run"),
            next=pl.when(pl.col("next_bet").is_not_null())
            .then(pl.lit("bet"))
            .when(is_last_stop)
            .then(pl.lit("stop")),
        )
        .drop("run", "is_stopped")
    )


def relative_rise() -> pl.Expr:
    """max(0, (r' - r) / r) of what is bet next, r being the share of the balance that is bet;
    stopping is a rise of 0, and null is where nothing was decided.
    """
    rise = (pl.col("next_ratio") - pl.col("ratio")) / pl.col("ratio")
    return pl.when(pl.col("next") == "stop").then(0.0).otherwise(rise.clip(lower_bound=0))
