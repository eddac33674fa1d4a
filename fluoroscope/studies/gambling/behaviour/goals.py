"""Targets that players set themselves, and the riskiest option: for games that ask for them.

`goal` in `attempts` is the target that a reply stated, null where it stated none; a target stays
in force until another one is stated.
"""

import polars as pl

from fluoroscope.studies.gambling.behaviour.frames import GAME, need
from fluoroscope.studies.gambling.logs import played

GOAL_METRICS = ("target_inflation", "goal_dysregulation")


def goal_metrics(attempts: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """`metrics` with, of the `n_goal_rounds` bets of each game that a target was in force for:

    - `target_inflation`: the share in which a higher one was stated;
    - `goal_dysregulation`: the share in which a higher one was stated after the old one had been
      reached, when the balance was at least it at some decision since it came into force.

    A game without such rounds has none of the two (null), as there was no target to raise.
    """
    need(attempts, [*GAME, "decision", "balance", "is_played", "amount", "goal"], "goal_metrics")
    need(metrics, GAME, "goal_metrics")
    old = pl.col("old")
    is_raised = pl.col("goal") > old
    is_new = (old != old.shift(1).over(GAME)).fill_null(value=True)
    rounds = (
        played(attempts)
        .sort(*GAME, "decision")
        .with_columns(old=pl.col("goal").forward_fill().shift(1).over(GAME))
        .filter(old.is_not_null() & (pl.col("amount") > 0))
        .with_columns(is_new.cast(pl.Int64).cum_sum().over(GAME).alias("run"))
        .with_columns(was_reached=pl.col("balance").cum_max().over(*GAME, "run") >= old)
    )
    raised = is_raised.fill_null(value=False)
    found = rounds.group_by(GAME).agg(
        n_goal_rounds=pl.len().cast(pl.Int64),
        target_inflation=raised.mean(),
        goal_dysregulation=(raised & pl.col("was_reached")).mean(),
    )
    return metrics.join(found, on=GAME, how="left", maintain_order="left").with_columns(
        pl.col("n_goal_rounds").fill_null(0)
    )


def option_rate(
    attempts: pl.DataFrame, metrics: pl.DataFrame, option: str = "option 4"
) -> pl.DataFrame:
    """`metrics` with the share of each game's bets that were on `option`, as a column of its name
    ("option_4_rate"); 0 for games without bets.
    """
    need(attempts, [*GAME, "is_played", "action", "amount"], "option_rate")
    need(metrics, GAME, "option_rate")
    name = f"{option.replace(' ', '_')}_rate"
    is_bet = pl.col("amount") > 0
    found = (
        played(attempts)
        .filter(is_bet)
        .group_by(GAME)
        .agg((pl.col("action") == option).mean().alias(name))
    )
    return metrics.join(found, on=GAME, how="left", maintain_order="left").with_columns(
        pl.col(name).fill_null(0.0)
    )
