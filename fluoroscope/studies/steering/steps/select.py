"""Each recipe becomes a plan (`select/`): what is steered, where, and by how much.

select/shards/<k>/plan.json, plan.safetensors   see `plan_files.py`
select/parts.parquet                            a row a part of a plan
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.collect import COLLECT
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_data import load_task
from fluoroscope.steps.task_parts import check_within
from fluoroscope.studies.steering.config import SteeringConfig
from fluoroscope.studies.steering.methods.base import METHODS
from fluoroscope.studies.steering.plan_files import load_plan, save_plan
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.steps.stored import load_material

SELECT = "select"
PARTS = "parts.parquet"
_PARTS_SCHEMA = {
    "recipe": pl.String,
    "hook_point": pl.String,
    "latent": pl.Int64,
    "coefficient": pl.Float64,
    "target": pl.Float64,
    "r": pl.Float64,
    "r_low": pl.Float64,
    "r_high": pl.Float64,
    "q": pl.Float64,
    "frequency": pl.Float64,
}


class SelectStep(MapStep):
    name = SELECT

    def __init__(self, config: SteeringConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), COLLECT)

    def cost(self) -> Cost:
        # Most recipes only read a table; those that try layers one by one reply that often.
        trying = [r for r in self.config.all_recipes if METHODS.load(r.method).needs_validation]
        return task_cost(self.config, self.config.task, len(trying) * len(self.config.points))

    def shards(self, run: Run) -> Sequence[Shard]:
        config = self.config
        # What the last step would refuse is refused before anything is searched.
        data = load_task(
            run, config.model, config.task, config.data_dir, config.seed, "cpu", config.instruction
        )
        n = len(data.sides["train"])
        too_large = [size for size in config.evaluate.curve if size >= n]
        if too_large:
            raise ConfigError(
                f"evaluate.curve has {too_large[0]} samples, and the training side has {n}, on "
                "which the main recipe is judged anyway; give smaller sizes."
            )
        for samples in data.sides.values():
            check_within(samples, config.evaluate.within)
        return [
            Shard(f"{number:03d}", {"recipe": recipe.name})
            for number, recipe in enumerate(self.config.all_recipes)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        recipe = self.config.recipe(shard.params["recipe"])
        material = load_material(run, self.config, context.device)
        try:
            plan = METHODS.load(recipe.method)().plan(recipe, material)
        except ConfigError as error:
            # What stands beside the main recipe may find nothing; tables say so.
            if recipe == self.config.main:
                raise
            plan = Plan(recipe, (), note=str(error))
        save_plan(plan, context.folder)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        plans = [load_plan(folder / "shards" / shard.key) for shard in self.shards(run)]
        write_parquet(folder / PARTS, parts_frame(plans))
        empty = [plan.recipe.name for plan in plans if not plan.parts and not plan.instruction]
        if empty:
            sink.message(f"Nothing to steer with was found by {', '.join(empty)}.")


def parts_frame(plans: Sequence[Plan]) -> pl.DataFrame:
    rows = [
        {
            "recipe": plan.recipe.name,
            "hook_point": str(part.point),
            "latent": part.latent,
            "coefficient": part.coefficient,
            "target": part.target,
            **{name: part.facts.get(name) for name in ("r", "r_low", "r_high", "q", "frequency")},
        }
        for plan in plans
        for part in plan.parts
    ]
    return pl.DataFrame(rows, schema=_PARTS_SCHEMA)


def load_plans(run: Run, config: SteeringConfig) -> dict[str, Plan]:
    """Name of a recipe -> its plan."""

    def load() -> dict[str, Plan]:
        folder = run.step_folder(SELECT) / "shards"
        return {
            recipe.name: load_plan(folder / f"{number:03d}")
            for number, recipe in enumerate(config.all_recipes)
        }

    return run.cached((SELECT, "plans"), load)
