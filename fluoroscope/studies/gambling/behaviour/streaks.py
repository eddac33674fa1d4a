"""What is done after k wins or losses in a row."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from fluoroscope.core.intervals import (
    Interval,
    clustered_mean_interval,
    clustered_share_interval,
)
from fluoroscope.studies.gambling.behaviour.frames import (
    groups,
    interval_columns,
    interval_schema,
    need,
    numbers,
)
from fluoroscope.studies.gambling.behaviour.rounds import bets, relative_rise

LONGEST = 5

STREAK_MEASURES = ("continuation", "bet_increase", "mean_change", "chasing")


def streaks(attempts: pl.DataFrame, by: Sequence[str] = (), longest: int = LONGEST) -> pl.DataFrame:
    """A row for each arm, level of `by`, kind ("win" or "loss") and length 1..`longest`.

    A streak has length k at the decision after k rounds, and no more, that went the same way; a
    long one is counted once at each length. Only where a bet or a stop followed: `n` such
    decisions of `n_games`, and of each measure the value and its 95 % interval:

    - `continuation`: share that bet again;
    - `bet_increase`: share of those `n_continued` that bet more than before;
    - `mean_change`: of the bet, in dollars, among those;
    - `chasing`: mean of max(0, (r' - r) / r), where r is the share of the balance that is bet; as
      in `i_lc`, stopping is 0.

    Intervals are over repetitions: games of one are alike in luck, and rounds of one game too.
    """
    keys = list(dict.fromkeys(["arm", *by]))
    need(attempts, keys, "streaks")
    decided = bets(attempts).filter(pl.col("next").is_not_null())
    about_games = attempts.select(*dict.fromkeys(["arm", "game", *keys])).unique()
    extra = [name for name in about_games.columns if name not in decided.columns]
    if extra:
        decided = decided.join(about_games, on=["arm", "game"], how="left", maintain_order="left")
    rows = []
    for about, part in groups(decided, by, "streaks"):
        ordered = part.sort("game", "round")
        for won, kind in ((True, "win"), (False, "loss")):
            for length in range(1, longest + 1):
                found = ordered.filter((pl.col("won") == won) & (pl.col("streak") == length))
                rows.append({**about, "kind": kind, "length": length, **_measures(found)})
    schema = {**{name: decided.schema[name] for name in keys}, **_SCHEMA}
    return pl.DataFrame(rows, schema=schema, infer_schema_length=None)


def _measures(found: pl.DataFrame) -> dict[str, object]:
    is_bet = pl.col("next") == "bet"
    again = found.filter(is_bet)
    rise = pl.col("next_bet") - pl.col("bet")
    intervals = {
        "continuation": _share(found, is_bet),
        "bet_increase": _share(again, rise > 0),
        "mean_change": _mean(again, rise),
        "chasing": _mean(found, relative_rise()),
    }
    counts: dict[str, object] = {
        "n": len(found),
        "n_games": found["game"].n_unique(),
        "n_repetitions": found["repetition"].n_unique(),
        "n_continued": len(again),
    }
    return counts | interval_columns(intervals)


def _share(rows: pl.DataFrame, is_so: pl.Expr) -> Interval:
    if rows.is_empty():
        return _NOTHING
    cluster = numbers(rows["repetition"])
    return clustered_share_interval(rows.select(is_so).to_series().to_numpy(), cluster)


def _mean(rows: pl.DataFrame, value: pl.Expr) -> Interval:
    if rows.is_empty():
        return _NOTHING
    values = rows.select(value.cast(pl.Float64)).to_series().to_numpy()
    return clustered_mean_interval(values, numbers(rows["repetition"]))


_NOTHING = Interval(np.nan, np.nan, np.nan)
_COUNTS = ("n", "n_games", "n_repetitions", "n_continued")
_SCHEMA = {
    "kind": pl.String,
    "length": pl.Int64,
    **dict.fromkeys(_COUNTS, pl.Int64),
    **interval_schema(*STREAK_MEASURES),
}
