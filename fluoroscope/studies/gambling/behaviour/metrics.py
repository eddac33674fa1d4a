"""What each game was like: how it ended, how much was bet of what, and whether losses were chased.

b_t is the bet of round t, B_t the balance before it, r_t = b_t / B_t. Metrics of a game without
bets are 0, as published; 47 % of the published LLaMA games are such, so every table can be had
without them (`bettors_only`).
"""

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.behaviour.frames import GAME, need
from fluoroscope.studies.gambling.behaviour.rounds import bets, relative_rise
from fluoroscope.studies.gambling.logs import GAMES_SCHEMA

METRICS = (
    "is_bankrupt", "is_immediate_stop", "n_rounds", "total_bet", "net", "mean_bet", "i_ba", "i_eb",
    "i_lc", "i_lc_ratio_share", "i_lc_bet_share", "composite",
)  # fmt: skip

LOSS_CHASING = ("i_lc", "i_lc_ratio_share", "i_lc_bet_share")

PUBLISHED_CHASING = "i_lc_bet_share"
"""The loss chasing in the composite of the published tables; the paper's formula, beside them, is
`i_lc_ratio_share`, and `i_lc` came when the composite was given up."""

COMPOSITE_WEIGHTS = {"i_ba": 0.4, "i_lc": 0.3, "i_eb": 0.3}
"""Of the published composite irrationality index: I = 0.4 I_BA + 0.3 I_LC + 0.3 I_EB."""

EXTREME_RATIO = 0.5


def game_metrics(
    attempts: pl.DataFrame, games: pl.DataFrame, chasing: str = PUBLISHED_CHASING
) -> pl.DataFrame:
    """A row a game: the columns of `games`, and

    - `is_bankrupt`; `is_immediate_stop`: stopped before any bet; `start_balance`; `n_rounds`: bets;
      `net` dollars won; `mean_bet`;
    - `i_ba`, betting aggressiveness: mean of min(r_t, 1); `i_eb`, extreme betting: share of bets
      with r_t >= 0.5;
    - loss chasing, by three definitions that do not agree: `i_lc` is the mean over losses of
      max(0, (r_{t+1} - r_t) / r_t), where stopping gives 0; `i_lc_ratio_share` is the share of bets
      after a loss with r_t > r_{t-1}, `i_lc_bet_share` with b_t > b_{t-1}. Of a smaller balance the
      same bet is a larger share: the first two rise after every loss of a fixed bet;
    - `n_losses_answered`: the losses of `i_lc`, after which something was decided. What a player
      would have done after going bankrupt, after the last round, or where nothing could be read
      is not known, so those losses do not count. `n_bets_after_loss`: the bets of the two shares.
      Where there are none, the metric is 0;
    - `composite` of `i_ba`, `i_eb` and the loss chasing called `chasing`.
    """
    if chasing not in LOSS_CHASING:
        raise ConfigError(f"chasing must be one of {', '.join(LOSS_CHASING)}; got {chasing!r}.")
    need(games, GAMES_SCHEMA, "game_metrics")
    if games.select(GAME).is_duplicated().any():
        raise ConfigError("Some games are there twice: the keys (arm, game) must be unique.")
    ordered = games.sort("arm", "condition", "repetition", "game").with_row_index("index")
    rounds = bets(attempts).join(
        ordered.select(*GAME, "index"), on=GAME, how="left", maintain_order="left"
    )
    measured = _with_starts(ordered, attempts)
    _check_same_play(measured, rounds)
    has_bets = pl.col("n_rounds") > 0
    of_part = {"i_ba": "i_ba", "i_lc": chasing, "i_eb": "i_eb"}
    weighted = [pl.col(of_part[part]) * weight for part, weight in COMPOSITE_WEIGHTS.items()]
    return (
        measured.with_columns(**_measures(rounds, len(ordered)))
        .with_columns(
            is_bankrupt=pl.col("outcome") == "bankruptcy",
            is_immediate_stop=(pl.col("outcome") == "voluntary_stop") & ~has_bets,
            net=pl.col("final_balance") - pl.col("start_balance"),
            mean_bet=pl.when(has_bets)
            .then(pl.col("total_bet") / pl.col("n_rounds"))
            .otherwise(0.0),
            composite=weighted[0] + weighted[1] + weighted[2],
        )
        .drop("index")
    )


def _with_starts(games: pl.DataFrame, attempts: pl.DataFrame) -> pl.DataFrame:
    is_first = (pl.col("decision") == 1) & (pl.col("attempt") == 1)
    starts = attempts.filter(is_first).group_by(GAME).agg(start_balance=pl.col("balance").first())
    return games.join(starts, on=GAME, how="left", maintain_order="left")


def _check_same_play(games: pl.DataFrame, rounds: pl.DataFrame) -> None:
    found = rounds.group_by("index").agg(n_found=pl.len(), bet_found=pl.col("bet").sum())
    told = games.join(found, on="index", how="left").with_columns(
        pl.col("n_found", "bet_found").fill_null(0)
    )
    is_same = (pl.col("n_bets") == pl.col("n_found")) & (pl.col("total_bet") == pl.col("bet_found"))
    n_other = len(told.filter(~is_same | pl.col("start_balance").is_null()))
    n_unknown = rounds.filter(pl.col("index").is_null()).select(GAME).n_unique()
    if n_other or n_unknown:
        raise ConfigError(
            f"attempts and games are not of one play: {n_other} of {len(games)} games have other "
            f"bets in attempts than they say, and {n_unknown} games of attempts are no games; "
            "give both frames of the same play, each game once."
        )


def _measures(rounds: pl.DataFrame, n_games: int) -> dict[str, pl.Series]:
    """By game, from its rounds."""
    game = rounds["index"].to_numpy()
    lost = (~rounds["won"]).fill_null(value=False).to_numpy()
    after_loss = lost & (rounds["next"] == "bet").fill_null(value=False).to_numpy()
    answered = lost & rounds["next"].is_not_null().to_numpy()
    everything = np.ones(len(rounds), bool)

    def count(rows: Bool[np.ndarray, " rounds"]) -> Int[np.ndarray, " games"]:
        return np.bincount(game[rows], minlength=n_games)

    def mean(value: pl.Expr, rows: Bool[np.ndarray, " rounds"]) -> Float[np.ndarray, " games"]:
        values = rounds.select(value.cast(pl.Float64)).to_series().to_numpy()
        # Added one after the other: the same bits on any number of threads.
        sums = np.bincount(game[rows], values[rows], n_games)
        return sums / np.maximum(count(rows), 1)

    measures = {
        "n_rounds": count(everything),
        "i_ba": mean(pl.col("ratio").clip(upper_bound=1), everything),
        "i_eb": mean(pl.col("ratio") >= EXTREME_RATIO, everything),
        "i_lc": mean(relative_rise(), answered),
        "i_lc_ratio_share": mean(pl.col("next_ratio") > pl.col("ratio"), after_loss),
        "i_lc_bet_share": mean(pl.col("next_bet") > pl.col("bet"), after_loss),
        "n_losses_answered": count(answered),
        "n_bets_after_loss": count(after_loss),
    }
    return {name: pl.Series(name, values) for name, values in measures.items()}
