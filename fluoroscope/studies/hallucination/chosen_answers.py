"""Which answers a report shows, and by what two of them differ: nobody picks.

Scores decide, and ties go by the names of answers. Tables have a row an answer, with its `id`,
`group_id`, `category`, `label` and `score`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl

from fluoroscope.studies.hallucination.charts import THRESHOLD
from fluoroscope.studies.hallucination.metrics.describe import METRICS

N_EACH, N_METRICS = 2, 8
SIGNALS: Mapping[str, str] = MappingProxyType(
    {
        "surprise": "Mean over tokens of minus the log-probability of the token.",
        "entropy": "Mean over tokens of the entropy of the distribution that each was drawn from.",
    }
)
"""What is read without tracks, in nats, and what it is."""


class Shown(NamedTuple):
    """An answer that was chosen, and why."""

    why: str
    id: str


class Pair(NamedTuple):
    true: str
    made_up: str
    within: str
    """What the two have in common."""


def choose_answers(answers: pl.DataFrame, n_each: int = N_EACH) -> list[Shown]:
    """By `label` and `score`; none is shown for two reasons."""
    error = (pl.col("score") - pl.col("label")).abs()
    is_made_up, is_flagged = pl.col("label") == 1, pl.col("score") >= THRESHOLD
    chosen: list[Shown] = []

    def take(rows: pl.DataFrame, by: pl.Expr, why: Mapping[int, str]) -> None:
        ordered = rows.filter(~pl.col("id").is_in([one.id for one in chosen])).sort(by, "id")
        some = ordered.head(n_each)
        chosen.extend(Shown(why[label], name) for name, label in some.select("id", "label").rows())

    wrong = answers.filter(is_made_up != is_flagged)
    take(wrong, -error, {0: "True, and called made up", 1: "Made up, and called true"})
    take(answers.filter(is_made_up & is_flagged), error, {1: "Made up, and called so"})
    take(answers.filter(~is_made_up & ~is_flagged), error, {0: "True, and called so"})
    near = (pl.col("score") - THRESHOLD).abs()
    take(answers, near, {0: "True, on the border", 1: "Made up, on the border"})
    return chosen


def typical_pair(answers: pl.DataFrame) -> Pair:
    """A true and a made-up answer to one question if there are any, else of one kind, else of
    all: the pair whose scores differ by the median of all such pairs.
    """
    ordered = answers.sort("id")
    for column, within in (
        ("group_id", "of one group, so about the same thing"),
        ("category", "of one kind"),
    ):
        pairs = [
            _pairs(part) for _, part in ordered.group_by(column, maintain_order=True)
            if part["label"].n_unique() == 2
        ]  # fmt: skip
        if pairs:
            return Pair(*_median(pl.concat(pairs)), within)
    return Pair(*_median(_pairs(ordered)), "of all")


def differing_metrics(metrics: pl.DataFrame, pair: Pair, n: int = N_METRICS) -> pl.DataFrame:
    """The largest differences, in standard deviations over all answers."""
    rows = []
    for name in (*SIGNALS, *METRICS):
        spread = float(np.nanstd(metrics[name].to_numpy()))
        true, made_up = (
            metrics.filter(pl.col("id") == one)[name][0] for one in (pair.true, pair.made_up)
        )
        if spread > 0 and true is not None and made_up is not None:
            rows.append(
                {
                    "number": name,
                    "true": true,
                    "made up": made_up,
                    "difference in sd": (made_up - true) / spread,
                    "unit": METRICS[name].unit if name in METRICS else "nats",
                    "what it is": METRICS[name].says if name in METRICS else SIGNALS[name],
                }
            )
    schema = {"number": pl.String, "true": pl.Float64, "made up": pl.Float64}
    schema |= {"difference in sd": pl.Float64, "unit": pl.String, "what it is": pl.String}
    table = pl.DataFrame(rows, schema=schema)
    return table.sort(pl.col("difference in sd").abs(), "number", descending=[True, False]).head(n)


def _pairs(part: pl.DataFrame) -> pl.DataFrame:
    true, made_up = (
        part.filter(pl.col("label") == label).select("id", "score") for label in (0, 1)
    )
    both = true.join(made_up, how="cross", suffix="_made_up")
    return both.select("id", "id_made_up", difference=pl.col("score_made_up") - pl.col("score"))


def _median(pairs: pl.DataFrame) -> tuple[str, str]:
    ordered = pairs.sort("difference", "id", "id_made_up")
    true, made_up, _ = ordered.row((len(ordered) - 1) // 2)
    return true, made_up
