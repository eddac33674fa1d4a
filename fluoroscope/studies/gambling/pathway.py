"""What a pathway is told from: whole games that latents were not chosen on, and those latents.

Probes, lens, correlations and interventions (`pathway_probes`, `pathway_lens`, `pathway_edges`)
all look at the same games, none of which took part in choosing the latents.

Axes: `n` decisions.
"""

import numpy as np
import polars as pl
from jaxtyping import Int

from fluoroscope.core.seeding import stream
from fluoroscope.features.contrasts import top_latents
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.gambling.states import codes

STOP = "stop"
MIN_GAMES_A_STRATUM = 4
"""Games on average, below which exchanging rows within a condition would change little."""

CHOSEN = pl.Schema({
    "hook_point": pl.String, "layer": pl.Int64, "latent": pl.Int64, "d": pl.Float64,
    "bet_mean": pl.Float64, "stop_mean": pl.Float64, "sd": pl.Float64,
})  # fmt: skip


def followed_decisions(states: pl.DataFrame, n_games: int, seed: int) -> pl.DataFrame:
    """All decisions that could be read, of `n_games` games that latents were not chosen on.

    Every condition has its turn before one has its second, so fewer games are a beginning of more.
    `states` has `is_discovery`; the order of its rows is kept.
    """
    known = states.filter(~pl.col("is_discovery") & pl.col("action").is_not_null())
    games = known.select("game", "condition").unique("game", keep="first", maintain_order=True)
    luck = pl.Series("luck", stream(seed, "pathway", "games").random(len(games)))
    turn = pl.col("luck").rank("ordinal").over("condition").alias("turn")
    chosen = games.with_columns(luck).with_columns(turn).sort("turn", "luck").head(n_games)
    return known.filter(pl.col("game").is_in(chosen["game"].to_list()))


def exchange_strata(
    decisions: pl.DataFrame, factors: list[str]
) -> tuple[str, Int[np.ndarray, " n"]]:
    """Within what rows are exchanged between games, and the stratum of each row.

    The condition, if it has four games on average; else the first factor whose levels have as
    many (fifty games of 64 conditions leave nothing to exchange within one); else all together.
    """
    n_games = decisions["game"].n_unique()
    for name in ("condition", *factors):
        if n_games >= MIN_GAMES_A_STRATUM * max(1, decisions[name].n_unique()):
            return name, codes(decisions[name])
    return "all games", np.zeros(len(decisions), np.int64)


def exchanged(strata: Int[np.ndarray, " n"], seed: int, *names: str | int) -> Int[np.ndarray, " n"]:
    """Which row's values each row gets: a random one of its stratum, each once."""
    luck = stream(seed, "pathway", "exchange", *names).random(len(strata))
    order = np.empty(len(strata), np.int64)
    # Rows by stratum, as they are and at random: the k-th of the one gets the k-th of the other.
    order[np.argsort(strata, kind="stable")] = np.lexsort((luck, strata))
    return order


def chosen_latents(found: pl.DataFrame, n: int, by: str, *, is_decision: bool) -> pl.DataFrame:
    """The `n` latents of each hook point that differ most between decisions to stop and to bet.

    `found` are contrasts on discovery games: of decisions (`is_decision`), or, where there are
    none, of bankrupt games (counted as betting) and safe ones. `bet_mean` and `stop_mean` are what
    a latent is set to; `sd` is over all the rows that were contrasted.
    """
    if "n_in" not in found.columns or not len(found):
        return pl.DataFrame(schema=CHOSEN)
    tested = pl.col("is_tested") if "is_tested" in found.columns else pl.lit(value=True)
    usable = found.filter(tested & (pl.col("mean_in") != pl.col("mean_out")))
    n_in, n_out = pl.col("n_in"), pl.col("n_out")
    share = n_in / (n_in + n_out)
    within = share * pl.col("std_in") ** 2 + (1 - share) * pl.col("std_out") ** 2
    between = share * (1 - share) * (pl.col("mean_in") - pl.col("mean_out")) ** 2
    stop, bet = ("mean_in", "mean_out") if is_decision else ("mean_out", "mean_in")
    points = {name: HookPoint(name).layer for name in usable["hook_point"].unique()}
    table = top_latents(usable, n, by).select(
        "hook_point",
        pl.col("hook_point").replace_strict(points, return_dtype=pl.Int64).alias("layer"),
        "latent",
        (pl.col(by) if is_decision else -pl.col(by)).alias("d"),
        pl.col(bet).alias("bet_mean"),
        pl.col(stop).alias("stop_mean"),
        (within + between).sqrt().alias("sd"),
    )
    return table.cast(CHOSEN)
