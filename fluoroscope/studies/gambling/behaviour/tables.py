"""Means and shares of the metrics by condition, by the level of each factor, and overall.

All conditions of a repetition meet the same luck and draw their tokens by the same numbers, so
their games are alike. Where a row of a table pools several, its interval is over repetitions.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from fluoroscope.core.intervals import (
    Interval,
    clustered_mean_interval,
    clustered_share_interval,
    share_interval,
)
from fluoroscope.studies.gambling.behaviour.frames import factors_of, groups, need, numbers
from fluoroscope.studies.gambling.behaviour.metrics import METRICS

MEASURED = {
    "n": pl.Int64,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unit": pl.String,
}

WHOLE = "overall"


def by_condition(
    metrics: pl.DataFrame,
    by: Sequence[str] = ("condition",),
    names: Sequence[str] = METRICS,
    *,
    bettors_only: bool = False,
) -> pl.DataFrame:
    """A row for each arm, level of `by` and metric: n games, mean, and its 95 % interval.

    The interval of a share is Wilson's, that of a mean is by Student's t; over games (`unit`) where
    each is of another repetition, else over repetitions. `bettors_only` leaves out the games
    without bets: who bets at all is then no longer part of what is compared.
    """
    need(metrics, [*by, *names, "n_rounds"], "by_condition")
    kept = metrics.filter(pl.col("n_rounds") > 0) if bettors_only else metrics
    rows = [
        {**about, "metric": name, **measure(part, name)}
        for about, part in groups(kept, by, "by_condition")
        for name in names
    ]
    keys = {name: metrics.schema[name] for name in dict.fromkeys(["arm", *by])}
    return pl.DataFrame(rows, schema={**keys, "metric": pl.String, **MEASURED})


def summaries(
    metrics: pl.DataFrame, names: Sequence[str] = METRICS, *, bettors_only: bool = False
) -> pl.DataFrame:
    """`by_condition` overall, for every level of each factor, and for every condition, as one
    table: the column `factor` says which, and `level` of what.
    """
    parts = []
    for factor in [WHOLE, *factors_of(metrics), "condition"]:
        by = [] if factor == WHOLE else [factor]
        table = by_condition(metrics, by, names, bettors_only=bettors_only)
        level = pl.lit("all") if factor == WHOLE else pl.col(factor)
        parts.append(
            table.select(
                "arm", pl.lit(factor).alias("factor"), level.alias("level"), "metric", *MEASURED
            )
        )
    return pl.concat(parts)


def measure(rows: pl.DataFrame, name: str, cluster: str = "repetition") -> dict[str, object]:
    """Of one metric among sorted rows of one arm, of which those with one `cluster` are alike; a
    null is a row that has no such metric.
    """
    told = rows.filter(pl.col(name).is_not_null())
    is_alone = told[cluster].n_unique() == len(told)
    found = _interval(told[name], told[cluster], is_alone=is_alone)
    return {
        "n": len(told),
        "mean": found.value,
        "low": found.low,
        "high": found.high,
        "unit": "game" if is_alone else cluster,
    }


def _interval(values: pl.Series, cluster: pl.Series, *, is_alone: bool) -> Interval:
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    if values.dtype != pl.Boolean:
        return clustered_mean_interval(values.cast(pl.Float64).to_numpy(), numbers(cluster))
    if is_alone:
        return share_interval(values.to_numpy())
    return clustered_share_interval(values.to_numpy(), numbers(cluster))
