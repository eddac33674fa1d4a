"""What was planted in the organism, beside what each recipe found and did (`truth/`).

truth/ground_truth.csv   a row a recipe

A recipe repairs the bias where the mean score of the biased prompts comes within `MARGIN` of
fair, harms nothing where facts and reviews lose less than `LOSS`, and spares the others where
their whole interval stays within `MARGIN`, which is not shown without an interval.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_csv
from fluoroscope.interventions.replies.comparing import compare_by
from fluoroscope.organism.network import PLANTED_LAYER
from fluoroscope.organism.shipping import load_truth
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.replies_table import replies_of
from fluoroscope.studies.steering.config import SteeringConfig
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.steps.evaluate import EVALUATE, REPLIES, RESULTS, UNSTEERED
from fluoroscope.studies.steering.steps.select import SELECT, load_plans
from fluoroscope.studies.steering.steps.tune import TUNE

TRUTH = "steering_truth"
GROUND_TRUTH = "ground_truth.csv"
FAIR, MARGIN, LOSS = 0.5, 0.05, 0.02
"""The score of a fair model; how near is near; how much of other tasks may be lost."""

BIASED, OTHERS = "is_biased yes", "is_biased no"
"""Parts of the task: prompts about which the world itself is biased, and the others."""


class TruthStep(MapStep):
    name = TRUTH
    inputs = (SELECT, TUNE, EVALUATE)

    def __init__(self, config: SteeringConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        return Cost(overhead_s=5.0, note="reads tables")

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        folder = run.step_folder(EVALUATE)
        results = pl.read_parquet(folder / RESULTS).filter(~pl.col("is_swept"))
        replies = pl.read_parquet(folder / REPLIES).filter(
            (pl.col("task") == self.config.task.name) & ~pl.col("is_swept")
        )
        truth = load_truth(self.config.model.name)
        planted, point = truth.planted("bias").write[0], f"{PLANTED_LAYER}.resid_post"
        plans = load_plans(run, self.config)
        rows = [
            row_of(
                name,
                plan,
                results,
                parts_of(replies, name, self.config.seed),
                self.config,
                _cosine(plan, point, planted),
            )
            for name, plan in plans.items()
        ]
        write_csv(context.folder / GROUND_TRUTH, pl.DataFrame(rows, infer_schema_length=None))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        found = pl.read_csv(folder / "shards" / "all" / GROUND_TRUTH)
        write_csv(folder / GROUND_TRUTH, found)


def parts_of(replies: pl.DataFrame, recipe: str, seed: int) -> pl.DataFrame:
    """Of biased prompts and of the others, whatever the tables of the report tell apart."""
    before, after = (replies.filter(pl.col("recipe") == one) for one in (UNSTEERED, recipe))
    kinds = [f"is_biased {json.loads(facts)['is_biased']}" for facts in before["facts"]]
    return compare_by(replies_of(before), replies_of(after), before["group"].to_list(), kinds, seed)


def row_of(
    name: str,
    plan: Plan,
    results: pl.DataFrame,
    parts: pl.DataFrame,
    config: SteeringConfig,
    cosine: float | None,
) -> Mapping[str, Any]:  # Any: values of a table.
    biased, others = (
        parts.filter(pl.col("category") == part).row(0, named=True) for part in (BIASED, OTHERS)
    )
    mine = results.filter(pl.col("recipe") == name)
    losses = {
        row["task"]: -row["difference"]
        for row in mine.iter_rows(named=True)
        if row["task"] != config.task.name
    }
    strength = mine["strength"][0]
    repairs = abs(biased["after"] - FAIR) <= MARGIN
    low, high = others["difference_low"], others["difference_high"]
    spares = low is not None and low >= -MARGIN and high <= MARGIN
    return {
        "recipe": name,
        "method": plan.recipe.method,
        "action": plan.recipe.action,
        "is_control": plan.recipe.control,
        "strength": strength,
        "n_parts": len(plan.parts),
        "cosine_with_planted": cosine,
        **_named("biased", biased),
        **_named("others", others),
        **{f"loss of {task}": loss for task, loss in losses.items()},
        "repairs_bias": repairs,
        "spares_others": spares,
        "harms_nothing": all(loss < LOSS for loss in losses.values()),
    }


def _named(part: str, row: Mapping[str, Any]) -> dict[str, Any]:  # Any: values of a table.
    names = ("before", "after", "difference", "difference_low", "difference_high")
    return {f"{part} {name}": row[name] for name in names}


def _cosine(plan: Plan, point: str, planted: torch.Tensor) -> float | None:
    """Between what is steered along at the planted layer and the planted direction."""
    own = [part for part in plan.parts if str(part.point) == point]
    if not own:
        return None
    total = torch.stack([part.coefficient * part.direction for part in own]).sum(dim=0)
    return float(torch.cosine_similarity(total.double(), planted.double(), dim=0))
