"""How the games went: bankruptcy by condition, parts of the prompt, streaks, and how replies were
read.
"""

import itertools

import polars as pl

from fluoroscope.plots.chart import Axis, Bars, Chart, Heatmap, Line, Mark, Reference, Scatter
from fluoroscope.runs.report import Report
from fluoroscope.studies.gambling.behaviour.metrics import METRICS
from fluoroscope.studies.gambling.behaviour.paired import component_effects, level_effects
from fluoroscope.studies.gambling.behaviour.parsing import (
    attempts_per_decision,
    reading_quality,
    rule_counts,
)
from fluoroscope.studies.gambling.behaviour.streaks import streaks
from fluoroscope.studies.gambling.behaviour.tables import summaries
from fluoroscope.studies.gambling.behaviour.trends import (
    complexity_means,
    complexity_trend,
    condition_fit,
    condition_points,
)
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.games.slot_machine import COMPONENTS

_SHOWN = ("is_bankrupt", "is_immediate_stop", "i_ba", "i_lc", "i_eb", "composite")
_SMALL = {"p": ".2g", "q": ".2g"}


def add_behaviour(report: Report, attempts: pl.DataFrame, metrics: pl.DataFrame) -> None:
    report.section("How it plays")
    outcomes = metrics["outcome"].value_counts().sort("outcome")
    parts = [f"{row['count']:,} {_said(row['outcome'])}" for row in outcomes.iter_rows(named=True)]
    report.text(
        f"Of {len(metrics):,} games {', '.join(parts)}. All conditions of a repetition meet the "
        "same luck, so rows that pool conditions have intervals (95 %) over repetitions. Metrics "
        "of games without a bet are 0; `without_idle` leaves those games out."
    )
    has_components = "components" in metrics.columns
    if has_components and "bet_type" in metrics.columns:
        _add_conditions(report, metrics)
    table = summaries(metrics)
    report.table("behaviour", _plain(table), "Every metric, overall, by factor and by condition.")
    if len(metrics.filter(pl.col("n_rounds") > 0)):
        idle = _plain(summaries(metrics, bettors_only=True))
        report.table("without_idle", idle, "The same without games that placed no bet.")
    if has_components:
        _add_components(report, metrics)
    if len(attempts.filter("is_played")) and len(metrics.filter(pl.col("n_rounds") > 0)):
        _add_streaks(report, attempts)


def _add_conditions(report: Report, metrics: pl.DataFrame) -> None:
    rates = metrics.group_by("bet_type", "components").agg(pl.col("is_bankrupt").mean())
    found = {(row[0], row[1].replace("BASE", "")): row[2] for row in rates.iter_rows()}
    letters = "".join(name for name in COMPONENTS if any(name in parts for _, parts in found))
    across, down = _subsets(letters[:2]), _subsets(letters[2:])
    panels: dict[str, list[Mark]] = {}
    for bet_type in sorted(set(rates["bet_type"])):
        values = [[found.get((bet_type, x + y), float("nan")) for x in across] for y in down]
        names = [[part or "none" for part in parts] for parts in (across, down)]
        heat = Heatmap(values, *names, label="share bankrupt", limits=(0, 1), show_values=True)
        panels[f"{bet_type} bets"] = [heat]
    chart = Chart.grid(panels, x=letters[:2], y=Axis(letters[2:]), columns=2)
    report.figure("bankruptcy", chart, "Bankruptcy by bet type and parts of the prompt.")
    if metrics["condition"].n_unique() > 2:
        _add_scatter(report, metrics)


def _subsets(letters: str) -> list[str]:
    return [
        "".join(chosen)
        for size in range(len(letters) + 1)
        for chosen in itertools.combinations(letters, size)
    ]


def _add_scatter(report: Report, metrics: pl.DataFrame) -> None:
    points = condition_points(metrics, "composite", "is_bankrupt")
    fit = condition_fit(metrics, "composite", "is_bankrupt").row(0, named=True)
    marks: list[Mark] = [
        Scatter("conditions", points["x"], points["y"], points["condition"].to_list())
    ]
    if fit["slope"] is not None and fit["slope"] == fit["slope"]:
        x = points["x"].to_numpy()
        ends = [float(x.min()), float(x.max())]
        line = [fit["intercept"] + fit["slope"] * x for x in ends]
        marks.append(Line(f"r = {fit['r']:.2f}", ends, line))
    chart = Chart.single(*marks, x="composite irrationality index", y="share bankrupt")
    report.figure("irrationality", chart, "A point a condition; the line is of least squares.")


def _add_components(report: Report, metrics: pl.DataFrame) -> None:
    report.subsection("Parts of the prompt")
    effects = component_effects(metrics)
    if len(effects):
        report.text(
            "The effect of a part is the difference between games with it and games that differ "
            "in it alone, on the same luck; the interval and the exact p are over repetitions, q "
            "after Benjamini-Hochberg over the table. `se_unpaired` is the standard error as it "
            "was published, which takes all games for independent."
        )
        panels: dict[str, list[Mark]] = {}
        for metric in _SHOWN:
            mine = effects.filter(pl.col("metric") == metric)
            panels[metric] = [
                Bars(metric, mine["component"].to_list(), mine["effect"], mine["low"], mine["high"])
            ]
        chart = Chart.grid(panels, x="part", y=Axis("effect"), references=[Reference(0.0)],
                           share_y=False)  # fmt: skip
        report.figure("components", chart, "Effects of the parts; bars are 95 % intervals.")
        report.table("component_effects", _plain(effects), "Effects of the parts.", _SMALL)
    if "bet_type" in metrics.columns and metrics["bet_type"].n_unique() > 1:
        bets = level_effects(metrics, "bet_type", "fixed")
        report.table("bet_type_effects", _plain(bets), "Variable against fixed bets.", _SMALL)
    means = complexity_means(metrics, ["is_bankrupt"])
    if means["n_components"].n_unique() > 1:
        line = Line(
            "bankrupt",
            means["n_components"],
            means["mean"],
            means["low"],
            means["high"],
            markers=True,
        )
        chart = Chart.single(line, x="parts of the prompt", y="share bankrupt")
        report.figure("complexity", chart, "More parts, more bankruptcies? Band: 95 % interval.")
        trend = complexity_trend(metrics)
        report.table("complexity_trend", _plain(trend), "Slope a part, and correlations.")


def _add_streaks(report: Report, attempts: pl.DataFrame) -> None:
    report.subsection("Streaks")
    found = streaks(attempts)
    panels: dict[str, list[Mark]] = {}
    for title, name in (("goes on betting", "continuation"), ("bets more", "bet_increase")):
        marks: list[Mark] = []
        for kind, part in found.group_by("kind", maintain_order=True):
            columns = ("length", name, f"{name}_low", f"{name}_high")
            x, y, low, high = (part[c].to_numpy() for c in columns)
            marks.append(Line(f"after {kind[0]} streaks", x, y, low, high, "solid", markers=True))
        panels[title] = marks
    chart = Chart.grid(panels, x="wins or losses in a row", y=Axis("share", limits=(0, 1)))
    report.figure("streak_curves", chart, "What follows a streak; bands are 95 % intervals.")
    report.table("streaks", _plain(found), "By length; no interval from fewer than 10 repetitions.")


def add_reading(
    report: Report, attempts: pl.DataFrame, games: pl.DataFrame, config: GamblingConfig
) -> None:
    report.section("How replies were read")
    n_read = int(attempts["is_played"].sum())
    quality = reading_quality(attempts, games, config.play.retries.max_attempts)
    share = n_read / max(1, len(attempts))
    verdict = (
        ""
        if share > 0.5
        else " **Most replies could not be read: this model does not follow the game, and nothing "
        "in this report is about how it gambles.**"
    )
    report.text(
        f"{n_read:,} of {len(attempts):,} replies moved a game on. A reply that cannot be read is "
        f"asked for again up to {config.play.retries.max_attempts} times and then skipped; it is "
        f"never taken for a stop or a bet.{verdict}"
    )
    report.table("reading", _plain(quality), "Problems, as shares of replies and decisions.")
    report.table("rules", _plain(rule_counts(attempts)), "Which rule of the grammar read what.")
    report.table("attempts", _plain(attempts_per_decision(attempts)), "Attempts a decision.")
    unread = attempts.filter(pl.col("problem") != "").head(6)
    if len(unread):
        shown = unread.select("game", "decision", "attempt", "problem", "response")
        report.table("unread", shown, "Some replies that could not be read.")


def _plain(table: pl.DataFrame) -> pl.DataFrame:
    """Without the arm, of which there is one, and without NaN."""
    kept = table.drop("arm", strict=False)
    floats = [name for name, kind in kept.schema.items() if kind.is_float()]
    return kept.with_columns(pl.col(floats).fill_nan(None))


def _said(outcome: str) -> str:
    words = {
        "bankruptcy": "went bankrupt",
        "voluntary_stop": "were stopped",
        "max_rounds": "reached the last round",
        "invalid": "ended without a readable decision",
    }
    return words[outcome]


assert set(_SHOWN) <= set(METRICS)
