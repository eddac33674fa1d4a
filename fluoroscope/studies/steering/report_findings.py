"""Findings: the tables that a steering run left, and which part each recipe plays in them.

What is gained is counted by the aim: where more is better, the mean score; where a score is aimed
at (`strength.towards`), 1 less the mean distance of the parts' mean scores from it, so that a part
that overshoots does not make up for one that falls short.

Axes: `n` samples, `parts` of a task, `groups` of samples.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from fluoroscope.core.intervals import Interval, resampled_interval
from fluoroscope.core.storage import read_json
from fluoroscope.data.tasks.base import TASKS
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.comparing import compare, group_numbers
from fluoroscope.runs.run import DONE, Run
from fluoroscope.steps.replies_table import replies_of, scores
from fluoroscope.steps.task_parts import part_of
from fluoroscope.studies.steering.config import PLANTED, PROMPT, SteeringConfig, pattern_of
from fluoroscope.studies.steering.recipes import Recipe
from fluoroscope.studies.steering.steps.evaluate import EVALUATE, PARTS, REPLIES, RESULTS, UNSTEERED
from fluoroscope.studies.steering.steps.select import PARTS as PICKS
from fluoroscope.studies.steering.steps.select import SELECT
from fluoroscope.studies.steering.steps.strips import CARDS, STRIPS, TASK_FACTS, TOKENS
from fluoroscope.studies.steering.steps.tune import CHOSEN, TRIED, TUNE

Role = Literal["main", "method", "prompt", "ceiling", "control", "ablation", "curve"]
COMPARED: tuple[Role, ...] = ("main", "method", "prompt", "ceiling")
"""Each of one recipe, unlike the draws of a control."""


def role_of(recipe: Recipe, config: SteeringConfig) -> Role:
    main = config.main.name
    if recipe.name == main:
        return "main"
    if recipe.name in {curve_name(main, n) for n in config.evaluate.curve}:
        return "curve"
    if recipe.varied:
        return "ablation"
    if recipe.control:
        return "control"
    kinds: Mapping[str, Role] = {PLANTED: "ceiling", PROMPT: "prompt"}
    return kinds.get(recipe.method, "method")


def curve_name(main: str, n: int) -> str:
    """What `config.expanded` calls the main recipe of the first `n` samples."""
    return f"{main}, {n} samples"


@dataclass(frozen=True, eq=False)
class Findings:
    """Read once; every part of the report looks at the same tables."""

    config: SteeringConfig
    results: pl.DataFrame
    parts: pl.DataFrame
    replies: pl.DataFrame
    chosen: pl.DataFrame
    tried: pl.DataFrame
    picks: pl.DataFrame
    tasks: Mapping[str, Any]  # Any: JSON values.
    """Of each task what `steps/strips.py` says; none of a run that has not done it."""

    cards: Sequence[Mapping[str, Any]]  # Any: JSON values.
    tokens: pl.DataFrame | None

    @property
    def task(self) -> str:
        return self.config.task.name

    @property
    def main(self) -> str:
        return self.config.main.name

    @property
    def towards(self) -> float | None:
        return self.config.strength.towards

    @property
    def counts_stereotypes(self) -> bool:
        """Whether 1 less the score is a share of stereotypes."""
        return TASKS.load(self.task).kind in ("judged", "pairs")

    @cached_property
    def roles(self) -> dict[str, Role]:
        """By name, in the order of the recipes."""
        return {one.name: role_of(one, self.config) for one in self.config.all_recipes}

    def named(self, *roles: Role) -> list[str]:
        return [name for name, role in self.roles.items() if role in roles]

    @property
    def draws(self) -> dict[str, list[str]]:
        """Method of a control -> its draws."""
        found: dict[str, list[str]] = {}
        for name in self.named("control"):
            found.setdefault(self.config.recipe(name).method, []).append(name)
        return found

    def pattern(self, method: str) -> str:
        """What the draws of a control are matched to."""
        control = self.config.recipe(self.draws[method][0])
        return (pattern_of(control, self.config.all_recipes) or self.config.main).name

    def result(self, recipe: str, task: str | None = None) -> dict[str, Any]:  # Any: of a table.
        """The row of a recipe at its own strength, on the task that steering is meant for."""
        at = (pl.col("recipe") == recipe) & (pl.col("task") == (task or self.task))
        return self.results.filter(at & ~pl.col("is_swept")).row(0, named=True)

    def said(self, recipe: str) -> pl.DataFrame:
        """Its replies to the task's test side."""
        at = (pl.col("recipe") == recipe) & (pl.col("task") == self.task)
        return self.replies.filter(at & ~pl.col("is_swept"))

    @cached_property
    def labels(self) -> list[str]:
        """Of each test sample the part that it belongs to."""
        within = self.config.evaluate.within
        return [part_of(_sample(row), within) for row in self.said(UNSTEERED).iter_rows(named=True)]

    @cached_property
    def _gains(self) -> dict[tuple[str, str], Interval]:
        return {}

    def gain(self, recipe: str, over: str = UNSTEERED) -> Interval:
        """What `recipe` gains over another, paired over the same samples, by groups."""
        if (recipe, over) not in self._gains:
            self._gains[recipe, over] = self._gain(recipe, over)
        return self._gains[recipe, over]

    def is_steered(self, recipe: str) -> bool:
        """Whether anything is edited, or said before the prompt."""
        return recipe != UNSTEERED and bool(self.result(recipe)["is_steered"])

    def _gain(self, recipe: str, over: str) -> Interval:
        before, after = self.said(over), self.said(recipe)
        groups, seed = before["group"].to_list(), self.config.seed
        if not (self.is_steered(recipe) or self.is_steered(over)):
            # The same replies, by construction.
            return Interval(0.0, 0.0, 0.0)
        if self.towards is None:
            return compare(replies_of(before), replies_of(after), groups, seed).difference
        numbers = group_numbers(groups)
        return gain_towards(scores(after), scores(before), self.labels, numbers, self.towards, seed)


def load_findings(run: Run, config: SteeringConfig) -> Findings:
    """Of a run that is evaluated."""
    evaluate, tune = run.step_folder(EVALUATE), run.step_folder(TUNE)
    shown = run.folder / STRIPS / "shards" / "all"
    is_shown = (run.folder / STRIPS / DONE).exists()
    return Findings(
        config=config,
        results=_numbers(evaluate / RESULTS),
        parts=_numbers(evaluate / PARTS),
        replies=pl.read_parquet(evaluate / REPLIES),
        chosen=pl.read_parquet(tune / CHOSEN),
        tried=_numbers(tune / TRIED),
        picks=pl.read_parquet(run.step_folder(SELECT) / PICKS),
        tasks=read_json(shown / TASK_FACTS) if is_shown else {},
        cards=read_json(shown / CARDS) if is_shown else [],
        tokens=pl.read_parquet(shown / TOKENS) if is_shown else None,
    )


def _numbers(file: Path) -> pl.DataFrame:
    """A column without any value, as where groups are too few, is one of numbers all the same."""
    return pl.read_parquet(file).with_columns(pl.col(pl.Null).cast(pl.Float64))


def gain_towards(
    after: Float[np.ndarray, " n"],
    before: Float[np.ndarray, " n"],
    labels: Sequence[str],
    groups: Int[np.ndarray, " n"],
    towards: float,
    seed: int,
) -> Interval:
    """By how much the mean distance of the parts' means from `towards` has shrunk; its interval is
    a percentile bootstrap over groups.
    """
    _, part = np.unique(np.asarray(labels), return_inverse=True)
    shape = (int(groups.max()) + 1, int(part.max()) + 1)
    counts, new, old = (np.zeros(shape) for _ in range(3))
    for table, values in ((counts, np.ones(len(after))), (new, after), (old, before)):
        np.add.at(table, (groups, part), values)

    def shrunk(taken: Int[np.ndarray, " groups"]) -> float:
        n = counts[taken].sum(axis=0)
        is_there = n > 0
        away = [np.abs(sums[taken].sum(axis=0)[is_there] / n[is_there] - towards).mean()
                for sums in (old, new)]  # fmt: skip
        return float(away[0] - away[1])

    return resampled_interval(shrunk, shape[0], seed)


def _sample(row: Mapping[str, Any]) -> Sample:  # Any: values of a table.
    """As much of the sample as tables tell."""
    return Sample(
        id=row["id"],
        group_id=row["group"],
        prompt=row["prompt"] or row["text"] or row["id"],
        category=row["category"],
        facts=json.loads(row["facts"]),
    )
