"""Trends over conditions: more components, more of it? Where the composite is high, bankruptcy?

Intervals are by the jackknife over repetitions, as all conditions of one meet the same luck; those
of r on Fisher's scale.

Axes: draws (of all repetitions, or of all but one), repetitions, levels (numbers of components,
or conditions).
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.intervals import Interval, jackknife_intervals
from fluoroscope.studies.gambling.behaviour.frames import (
    groups,
    interval_columns,
    interval_schema,
    need,
    numbers,
)
from fluoroscope.studies.gambling.behaviour.metrics import METRICS
from fluoroscope.studies.gambling.behaviour.paired import NO_COMPONENTS
from fluoroscope.studies.gambling.behaviour.tables import by_condition

COMPLEXITY = "n_components"

_OF_TREND: tuple[str, ...] = ("slope", "r", "r_levels")
_OF_LINE: tuple[str, ...] = ("slope", "r", "intercept")
_CORRELATIONS = ("r", "r_levels")


def with_complexity(metrics: pl.DataFrame) -> pl.DataFrame:
    """With the number of components of the prompt as a column."""
    need(metrics, ["components"], "The number of components")
    count = pl.col("components").replace(NO_COMPONENTS, "").str.len_chars().cast(pl.Int64)
    return metrics.with_columns(count.alias(COMPLEXITY))


def complexity_means(
    metrics: pl.DataFrame, names: Sequence[str] = METRICS, *, bettors_only: bool = False
) -> pl.DataFrame:
    """`by_condition` for each number of components."""
    return by_condition(with_complexity(metrics), [COMPLEXITY], names, bettors_only=bettors_only)


def complexity_trend(
    metrics: pl.DataFrame, names: Sequence[str] = METRICS, by: Sequence[str] = ()
) -> pl.DataFrame:
    """Pearson's r and the least-squares slope of each metric on the number of components.

    A row for each arm, level of `by` and metric: n games, n_repetitions, `slope` (a component) and
    `r` over games, and `r_levels`, the published one, over the means of the levels. The latter is
    large wherever the means rise at all: with six of them it tells little.
    """
    need(metrics, names, "complexity_trend")
    rows = []
    for about, part in groups(with_complexity(metrics), by, "complexity_trend"):
        for name in names:
            told = part.drop_nulls(name)
            rows.append({**about, "metric": name, "n": len(told), **_trend(told, name)})
    keys = {name: metrics.schema[name] for name in dict.fromkeys(["arm", *by])}
    counts = {"metric": pl.String, "n": pl.Int64, "n_repetitions": pl.Int64}
    schema = {**keys, **counts, **interval_schema(*_OF_TREND)}
    return pl.DataFrame(rows, schema=schema, infer_schema_length=None)


def condition_points(
    metrics: pl.DataFrame, x: str = "composite", y: str = "is_bankrupt"
) -> pl.DataFrame:
    """A point for every arm and condition: n games and the means of two metrics, with intervals."""
    table = by_condition(metrics, ["condition"], [x, y])
    sides = [
        table.filter(pl.col("metric") == name)
        .rename({"mean": axis, "low": f"{axis}_low", "high": f"{axis}_high"})
        .select("arm", "condition", "n", axis, f"{axis}_low", f"{axis}_high")
        for axis, name in (("x", x), ("y", y))
    ]
    return sides[0].join(sides[1].drop("n"), on=["arm", "condition"], maintain_order="left")


def condition_fit(
    metrics: pl.DataFrame,
    x: str = "composite",
    y: str = "is_bankrupt",
    by: Sequence[str] = (),
) -> pl.DataFrame:
    """The line through the points of `condition_points`: `slope`, `r` and `intercept`, a row for
    each arm and level of `by`. Every condition counts the same.
    """
    need(metrics, [x, y], "condition_fit")
    rows = []
    for about, part in groups(metrics, by, "condition_fit"):
        sums = _totals(part, "condition", [pl.lit(1.0), pl.col(x), pl.col(y)])
        n_repetitions, n_conditions = sums.shape[:2]
        found = _intervals(_line_through_conditions, sums, _OF_LINE)
        about |= {"n_conditions": n_conditions, "n_repetitions": n_repetitions}
        rows.append(about | interval_columns(found))
    keys = {name: metrics.schema[name] for name in dict.fromkeys(["arm", *by])}
    counts = {"n_conditions": pl.Int64, "n_repetitions": pl.Int64}
    schema = {**keys, **counts, **interval_schema(*_OF_LINE)}
    return pl.DataFrame(rows, schema=schema, infer_schema_length=None)


def _trend(games: pl.DataFrame, name: str) -> dict[str, object]:
    if games.is_empty():
        nothing = Interval(np.nan, np.nan, np.nan)
        return {"n_repetitions": 0} | interval_columns(dict.fromkeys(_OF_TREND, nothing))
    value = pl.col(name).cast(pl.Float64)
    sums = _totals(games, COMPLEXITY, [pl.lit(1.0), value, value**2])
    levels = games[COMPLEXITY].unique().sort().cast(pl.Float64).to_numpy()

    def statistics(drawn: Float[np.ndarray, "draws levels 3"]) -> Float[np.ndarray, "draws 3"]:
        return _trend_over_levels(levels, drawn)

    found = _intervals(statistics, sums, _OF_TREND)
    return {"n_repetitions": len(sums)} | interval_columns(found)


def _trend_over_levels(
    levels: Float[np.ndarray, " levels"], sums: Float[np.ndarray, "draws levels 3"]
) -> Float[np.ndarray, "draws 3"]:
    """Slope and z of r over games, and z over levels, of each level's count, sum and squares."""
    n, total, squares = np.moveaxis(sums, -1, 0)
    every = n.sum(-1)
    x = levels - (n @ levels / every)[:, None]
    xy, xx = (x * total).sum(-1), _spread((n * x**2).sum(-1), n @ levels**2)
    yy = _spread(squares.sum(-1) - total.sum(-1) ** 2 / every, squares.sum(-1))
    _, _, z_levels = _line(np.broadcast_to(levels, n.shape), _ratio(total, n))
    return np.stack([_ratio(xy, xx), _fisher_z(xy, xx, yy), z_levels], -1)


def _line_through_conditions(
    sums: Float[np.ndarray, "draws levels 3"],
) -> Float[np.ndarray, "draws 3"]:
    n, x, y = np.moveaxis(sums, -1, 0)
    slope, intercept, z = _line(_ratio(x, n), _ratio(y, n))
    return np.stack([slope, z, intercept], -1)


def _line(
    x: Float[np.ndarray, "draws levels"], y: Float[np.ndarray, "draws levels"]
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Slope, intercept and z of r through points; those that are NaN in a draw are not in it."""
    is_there = ~np.isnan(x) & ~np.isnan(y)
    n = is_there.sum(-1)
    x, y = np.where(is_there, x, 0), np.where(is_there, y, 0)
    x_mean, y_mean = x.sum(-1) / n, y.sum(-1) / n
    dx = np.where(is_there, x - x_mean[:, None], 0)
    dy = np.where(is_there, y - y_mean[:, None], 0)
    xx = _spread((dx**2).sum(-1), (x**2).sum(-1))
    yy = _spread((dy**2).sum(-1), (y**2).sum(-1))
    xy = (dx * dy).sum(-1)
    slope = _ratio(xy, xx)
    return slope, y_mean - slope * x_mean, _fisher_z(xy, xx, yy)


def _fisher_z(
    xy: Float[np.ndarray, " draws"],
    xx: Float[np.ndarray, " draws"],
    yy: Float[np.ndarray, " draws"],
) -> Float[np.ndarray, " draws"]:
    """Of the correlation (Fisher 1915): artanh r, finite also for points on a line."""
    r = _ratio(xy, np.sqrt(xx * yy))
    return np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))


def _spread(
    around_mean: Float[np.ndarray, " draws"], squares: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    """A sum of squares around the mean, without what rounding leaves of a constant."""
    return np.where(around_mean > 1e-12 * squares, around_mean, 0)


def _ratio(
    above: Float[np.ndarray, "*n"], below: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    """NaN where there is nothing below."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _intervals(
    statistics: Callable[[Float[np.ndarray, "draws levels k"]], Float[np.ndarray, "draws m"]],
    sums: Float[np.ndarray, "repetitions levels k"],
    names: Sequence[str],
) -> dict[str, Interval]:
    """Of what comes as Fisher's z where it is a correlation."""
    shape = sums.shape[1:]

    def of_flat(drawn: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, "draws m"]:
        return statistics(drawn.reshape(-1, *shape))

    found = jackknife_intervals(of_flat, sums.reshape(len(sums), -1))
    return {
        name: Interval(*(float(np.tanh(end)) for end in one)) if name in _CORRELATIONS else one
        for name, one in zip(names, found, strict=True)
    }


def _totals(
    games: pl.DataFrame, level: str, values: Sequence[pl.Expr]
) -> Float[np.ndarray, "repetitions levels k"]:
    """Sums over the games of each repetition and level."""
    repetition, of_level = numbers(games["repetition"]) - 1, numbers(games[level]) - 1
    shape = (int(repetition.max()) + 1, int(of_level.max()) + 1)
    cell = repetition * shape[1] + of_level
    columns = [
        games.with_columns(value.cast(pl.Float64).alias("value"))["value"] for value in values
    ]
    n_cells = shape[0] * shape[1]
    sums = [np.bincount(cell, column.to_numpy(), n_cells).reshape(shape) for column in columns]
    return np.stack(sums, -1)
