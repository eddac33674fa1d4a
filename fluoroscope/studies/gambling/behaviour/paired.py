"""Effects as differences between games that are alike in everything else, luck too.

Games are paired within a repetition, all conditions of which meet the same luck, and repetitions
are the unit: the interval of an effect is by the spread of its differences over repetitions, and
its p by exchanging the two sides of whole repetitions. q is after Benjamini-Hochberg over the
whole table.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.stats import false_discovery_control

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import clustered_mean_interval
from fluoroscope.core.seeding import stream
from fluoroscope.studies.gambling.behaviour.frames import factors_of, groups, need, numbers
from fluoroscope.studies.gambling.behaviour.metrics import METRICS
from fluoroscope.studies.gambling.games.slot_machine import COMPONENTS

BASELINE = "baseline"
NO_COMPONENTS = "BASE"

MAX_EXACT = 12
"""Repetitions up to which every exchange of sides is gone through (4,096 of them)."""

N_EXCHANGES = 9999

_EFFECT = {
    "metric": pl.String,
    "n_pairs": pl.Int64,
    "n_alone": pl.Int64,
    "n_repetitions": pl.Int64,
    "mean_with": pl.Float64,
    "mean_without": pl.Float64,
    "effect": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "se_unpaired": pl.Float64,
    "p": pl.Float64,
}
_OTHER = " without"


def component_effects(
    metrics: pl.DataFrame, names: Sequence[str] = METRICS, by: Sequence[str] = (), seed: int = 0
) -> pl.DataFrame:
    """What each part of the prompt does: games with it minus games that differ in it alone.

    A row for each arm, level of `by`, component and metric: pairs, games left without a partner
    (`n_alone`), repetitions, both means, their difference with its 95 % interval, and p and q.
    `se_unpaired` is the standard error as published, the root of the summed squares of those of the
    two means; it takes all games for independent.
    """
    need(metrics, ["components"], "component_effects")
    parts = metrics.with_columns(parts=pl.col("components").replace(NO_COMPONENTS, ""))
    letters = sorted(set("".join(parts["parts"].unique())), key=COMPONENTS.find)
    on = ["repetition", "rest", *_but(factors_of(metrics), "components")]
    rows = []
    for about, part in groups(parts, by, "component_effects"):
        for letter in letters:
            is_with = pl.col("parts").str.contains(letter, literal=True)
            split = part.with_columns(rest=pl.col("parts").str.replace(letter, "", literal=True))
            for row in _effects(split.filter(is_with), split.filter(~is_with), on, names, seed):
                rows.append({**about, "component": letter, **row})
    return _table(metrics, rows, by, ["component"])


def level_effects(
    metrics: pl.DataFrame,
    factor: str,
    without: str,
    names: Sequence[str] = METRICS,
    by: Sequence[str] = (),
    seed: int = 0,
) -> pl.DataFrame:
    """What each level of a factor does in place of the level `without`, in games that are alike in
    all other factors: `level_effects(metrics, "bet_type", "fixed")`. Columns as of
    `component_effects`, with `level` in place of the component.
    """
    need(metrics, [factor], "level_effects")
    levels = sorted(metrics[factor].unique())
    _check_level(without, levels, factor)
    on = ["repetition", *_but(factors_of(metrics), factor)]
    rows = []
    for about, part in groups(metrics, by, "level_effects"):
        base = part.filter(pl.col(factor) == without)
        for level in _but(levels, without):
            side = part.filter(pl.col(factor) == level)
            for row in _effects(side, base, on, names, seed):
                rows.append({**about, "level": level, **row})
    return _table(metrics, rows, by, ["level"])


def arm_effects(
    metrics: pl.DataFrame, names: Sequence[str] = METRICS, by: Sequence[str] = (), seed: int = 0
) -> pl.DataFrame:
    """What each edit does to games: every arm minus the baseline of the same condition and luck.

    Columns as of `component_effects`; the arm is its `arm`. Games of the baseline that an arm did
    not play are left out; an arm's game without a baseline is an error.
    """
    _check_level(BASELINE, sorted(metrics["arm"].unique()), "arm")
    base = metrics.filter(pl.col("arm") == BASELINE)
    rows = []
    for about, part in groups(metrics.filter(pl.col("arm") != BASELINE), by, "arm_effects"):
        on = ["condition", "repetition", *factors_of(metrics)]
        others = base
        for key in by:
            others = others.filter(pl.col(key) == about[key])
        lonely = part.join(others, on=on, how="anti")
        if len(lonely):
            raise ConfigError(
                f"{len(lonely)} games of the arm {about['arm']!r} have no baseline, the first in "
                f"{lonely['condition'][0]}, repetition {lonely['repetition'][0]}: play the "
                "baseline of all conditions and repetitions of the arms."
            )
        played = others.join(part, on=on, how="semi").sort(on)
        rows += [{**about, **row} for row in _effects(part, played, on, names, seed)]
    return _table(metrics, rows, by, [])


def _effects(
    with_: pl.DataFrame, without: pl.DataFrame, on: list[str], names: Sequence[str], seed: int
) -> Iterator[dict[str, object]]:
    need(with_, names, "An effect")
    for side in (with_, without):
        if side.select(on).is_duplicated().any():
            raise ConfigError(
                f"Some games cannot be told apart by {', '.join(on)}: give the games of one model, "
                "each once."
            )
    pairs = with_.select(*on, *names).join(
        without.select(*on, *names), on=on, how="inner", suffix=_OTHER
    )
    n_alone = len(with_) + len(without) - 2 * len(pairs)
    for name in names:
        told = pairs.drop_nulls([name, name + _OTHER]).sort(on)
        if len(told):
            row = _effect(told, name, seed)
            yield {"metric": name, "n_pairs": len(told), "n_alone": n_alone, **row}


def _effect(pairs: pl.DataFrame, name: str, seed: int) -> dict[str, object]:
    more, less = (pairs[side].cast(pl.Float64).to_numpy() for side in (name, name + _OTHER))
    repetition = numbers(pairs["repetition"])
    found = clustered_mean_interval(more - less, repetition)
    sums = np.bincount(repetition - 1, more - less)
    errors = [side.var(ddof=1) / len(side) if len(side) > 1 else np.nan for side in (more, less)]
    return {
        "n_repetitions": len(sums),
        "mean_with": float(more.mean()),
        "mean_without": float(less.mean()),
        "effect": found.value,
        "low": found.low,
        "high": found.high,
        "se_unpaired": float(np.sqrt(sum(errors))),
        "p": exchange_p(sums, seed),
    }


def exchange_p(sums: Float[np.ndarray, " repetitions"], seed: int) -> float:
    """Two-sided p of the sum, when the two sides of whole repetitions are exchanged (Fisher 1935):
    exact up to 12 repetitions, else from 9,999 random exchanges and the one that was seen.
    """
    n = len(sums)
    if n <= MAX_EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = stream(seed, "exchange").integers(2, size=(N_EXCHANGES + 1, n))
        bits[0] = 1
    totals = np.abs((2 * bits - 1) @ sums)
    # Sums in another order round otherwise.
    return float((totals >= abs(sums.sum()) - 1e-9 * np.abs(sums).sum()).mean())


def _table(
    metrics: pl.DataFrame, rows: list[dict[str, object]], by: Sequence[str], extra: list[str]
) -> pl.DataFrame:
    keys = {name: metrics.schema[name] for name in dict.fromkeys(["arm", *by])}
    schema = {**keys, **dict.fromkeys(extra, pl.String), **_EFFECT}
    table = pl.DataFrame(rows, schema=schema, infer_schema_length=None)
    q = false_discovery_control(table["p"].to_numpy()) if len(table) else np.empty(0)
    return table.with_columns(pl.Series("q", q, pl.Float64))


def _but(names: Sequence[str], one: str) -> list[str]:
    return [name for name in names if name != one]


def _check_level(level: str, levels: Sequence[str], factor: str) -> None:
    if level not in levels:
        raise ConfigError(f"There is no {factor} {level!r} in these games; there are {levels}.")
