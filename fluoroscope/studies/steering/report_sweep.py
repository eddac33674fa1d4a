"""The main recipe on the test side at every strength of the sweep: what is gained, at which cost.

Axes: `n` samples.
"""

import numpy as np
import polars as pl

from fluoroscope.interventions.replies.comparing import group_numbers, mean_over_groups
from fluoroscope.interventions.replies.pareto import pareto_front
from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Reference, Scatter
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.studies.steering.report_findings import (
    Findings,
)
from fluoroscope.studies.steering.steps.evaluate import UNSTEERED

N_LINES = 4
"""Parts that are drawn apart, the largest."""

_ALL = "all samples"
_COSTS = {"kl": "KL to the unsteered model (nats a token)", "perplexity_ratio": "perplexity ratio"}
_NUMBERS = ("after", "difference", "kl", "perplexity_ratio")


def add_sweep(report: Report, found: Findings) -> None:
    table = sweep_table(found)
    report.subsection("The main method on the test side")
    report.text(
        "Each point is a strength. On the **front** are those of which none other gains as much "
        "for less. What lies between the strength that was chosen and the best here is what the "
        "choice on the validation side costs; it is looked at, and nothing is chosen by it."
    )
    aims = [Reference(found.towards, "aim")] if found.towards is not None else []
    chart = Chart.single(
        *_lines(score_by_strength(found)), x="strength", y="score", references=aims
    )
    report.figure("score_by_strength", chart, "Bands: 95 % intervals over groups.")
    word = "gain towards the aim" if found.towards is not None else "difference of the score"
    for cost, label in _COSTS.items():
        chart = Chart.single(*_front_marks(table, cost), x=label, y=word)
        report.figure(f"front_{cost}", chart, f"What is gained, and what it costs: {label}.")
    if found.counts_stereotypes:
        report.figure(
            "stereotypes",
            _ratio_chart(table),
            "Stereotypes and coherence against strength; bands are 95 % intervals.",
        )
    report.table("sweep", without_nan(table), "Strength 0 is the unsteered model.")


def sweep_table(found: Findings) -> pl.DataFrame:
    """A row a strength, the unsteered model first, and which are on the Pareto fronts."""
    own = found.results.filter(_is_swept(found))
    own = own.unique("strength", keep="first", maintain_order=True).sort("strength")
    columns = [f"{name}{end}" for name in _NUMBERS for end in ("", "_low", "_high")]
    table = own.select("strength", *columns, "n_better", "n_worse", "distinct_2")
    gain = table["difference"].to_numpy()
    if found.towards is not None:
        gain = _gains(score_by_strength(found), found.towards)
    fronts = {f"on_front_{cost}": pareto_front(gain, _floats(table[cost])) for cost in _COSTS}
    return table.with_columns(gain=pl.Series(gain), **{k: pl.Series(v) for k, v in fronts.items()})


def score_by_strength(found: Findings) -> pl.DataFrame:
    """A row a strength and part (one part, where more is better): the mean score with its ends."""
    apart = found.towards is not None
    rows = []
    swept = found.replies.filter(_is_swept(found)).sort("strength", maintain_order=True)
    for (strength,), said in swept.group_by("strength", maintain_order=True):
        once = said.unique("id", keep="first", maintain_order=True)
        labels = pl.Series("part", found.labels if apart else [_ALL] * len(once))
        for (part,), own in once.with_columns(labels).group_by("part", maintain_order=True):
            groups = group_numbers(own["group"].to_list())
            mean = mean_over_groups(own["score"].to_numpy(), groups)
            rows.append((strength, part, len(own), *mean))
    schema = ["strength", "part", "n", "score", "low", "high"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _is_swept(found: Findings) -> pl.Expr:
    """Rows of the main recipe at any strength, and of the unsteered model."""
    return pl.col("recipe").is_in([UNSTEERED, found.main]) & (pl.col("task") == found.task)


def _gains(scores: pl.DataFrame, towards: float) -> np.ndarray:
    """By how much the mean distance of the parts shrinks, in the order of strengths."""
    away = scores.group_by("strength", maintain_order=True).agg(
        (pl.col("score") - towards).abs().mean().alias("away")
    )
    return away["away"][0] - away["away"].to_numpy()


def _lines(scores: pl.DataFrame) -> list[Mark]:
    sizes = scores.unique("part", maintain_order=True).sort("n", descending=True)
    return [
        Line(
            part, own["strength"], own["score"], own["low"], own["high"], markers=True
        )
        for part in sizes["part"].head(N_LINES)
        for own in [scores.filter(pl.col("part") == part)]
    ]  # fmt: skip


def _front_marks(table: pl.DataFrame, cost: str) -> list[Mark]:
    shown = table.filter(pl.col(cost).is_not_null())
    front = shown.filter(pl.col(f"on_front_{cost}")).sort(cost)
    labels = [f"strength {strength:g}" for strength in shown["strength"]]
    return [
        Line("front", front[cost], front["gain"], style="dashed"),
        Scatter("strengths", shown[cost], shown["gain"], labels),
    ]


def _ratio_chart(table: pl.DataFrame) -> Chart:
    strength, ratio = table["strength"], 1 - table["after"]
    low, high = 1 - _floats(table["after_high"]), 1 - _floats(table["after_low"])
    names = ("perplexity_ratio", "perplexity_ratio_low", "perplexity_ratio_high")
    value, below, above = (_floats(table[name]) for name in names)
    return Chart.grid(
        {
            "stereotype ratio": [
                Line("stereotype ratio", strength, ratio, low, high, markers=True)
            ],
            "perplexity ratio": [
                Line("perplexity ratio", strength, value, below, above, markers=True)
            ],
        },
        x="strength",
        y=Axis("ratio"),
        columns=2,
        share_y=False,
    )


def _floats(column: pl.Series) -> np.ndarray:
    """With NaN where there is nothing."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
