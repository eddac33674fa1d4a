"""The strength of each recipe, searched on the validation side (`tune/`).

tune/tried.parquet      a row a recipe and strength: score, perplexity ratio, norm, why refused
tune/chosen.parquet     a row a recipe: the strength it is judged with

Random controls are not searched. They have the shape of corrsteer-a, and get the strength that it
got, so that they change as much. Recipes that fix a strength keep it.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.interventions.replies.answering import Reply
from fluoroscope.interventions.replies.strengths import (
    Judged,
    StrengthSearch,
    Tried,
    search_strengths,
)
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.collect import COLLECT
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.studies.steering.config import SteeringConfig, pattern_of
from fluoroscope.studies.steering.judging import (
    drifted,
    goal,
    judged,
    text_perplexity,
    watched_texts,
)
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.recipes import Recipe
from fluoroscope.studies.steering.steps.select import SELECT, load_plans
from fluoroscope.studies.steering.steps.stored import StoredMaterial, load_material

TUNE = "tune"
TRIED, CHOSEN = "tried.parquet", "chosen.parquet"
_TRIED_SCHEMA = {
    "recipe": pl.String,
    "strength": pl.Float64,
    "score": pl.Float64,
    "perplexity_ratio": pl.Float64,
    "norm_share": pl.Float64,
    "repetition": pl.Float64,
    "refused": pl.String,
}
_CHOSEN_SCHEMA = {
    "recipe": pl.String,
    "strength": pl.Float64,
    "is_any_better": pl.Boolean,
    "note": pl.String,
}


def is_searched(recipe: Recipe) -> bool:
    return recipe.strength is None and not recipe.control


class TuneStep(MapStep):
    name = TUNE

    def __init__(self, config: SteeringConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), COLLECT, SELECT)

    def cost(self) -> Cost:
        n = sum(map(is_searched, self.config.all_recipes))
        settings = self.config.strength
        return task_cost(
            self.config,
            self.config.task,
            n * (1 + len(settings.grid) + 2 * settings.refinements),
            samples=400,
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(f"{number:03d}", {"recipe": recipe.name})
            for number, recipe in enumerate(self.config.all_recipes)
            if is_searched(recipe)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        plan = load_plans(run, self.config)[shard.params["recipe"]]
        material = load_material(run, self.config, context.device)
        tried, chosen = self._tune(run, plan, material, context.sink)
        write_parquet(context.folder / TRIED, tried_frame(plan.recipe.name, tried))
        write_parquet(context.folder / CHOSEN, pl.DataFrame([chosen], schema=_CHOSEN_SCHEMA))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        places = [folder / "shards" / shard.key for shard in self.shards(run)]
        for name, schema in ((TRIED, _TRIED_SCHEMA), (CHOSEN, _CHOSEN_SCHEMA)):
            parts = [pl.read_parquet(place / name) for place in places]
            frame = pl.concat(parts) if parts else pl.DataFrame(schema=schema)
            if name == CHOSEN:
                frame = with_fixed(frame, self.config)
            write_parquet(folder / name, frame)

    def _tune(
        self, run: Run, plan: Plan, material: StoredMaterial, sink: Sink
    ) -> tuple[Sequence[Tried], dict[str, object]]:
        name = plan.recipe.name
        if plan.instruction and not plan.parts:
            # Words have no strength.
            return (), _chosen(name, 1.0, True, "an instruction has no strength")
        if not plan.parts:
            return (), _chosen(name, 0.0, False, plan.note or "nothing was found to steer with")
        unsteered = run.cached(("unsteered", TUNE), lambda: Watched(material, self.config))
        settings, n_done = self.config.strength, 0
        # Fewer, where the best lies at an end of what was tried.
        n_most = 1 + len(settings.grid) + 2 * settings.refinements

        def judge(strength: float) -> Judged:
            nonlocal n_done
            n_done += 1
            sink.progress(n_done, n_most, "strengths")
            return unsteered.judge(plan, strength)

        found: StrengthSearch = search_strengths(
            settings.grid, judge, settings.guard, settings.refinements
        )
        note = "" if found.is_any_better else "no admissible strength is better than none"
        return found.tried, _chosen(name, found.best.strength, found.is_any_better, note)


class Watched:
    """The validation side and the texts that perplexity is watched on, unsteered once."""

    def __init__(self, material: StoredMaterial, config: SteeringConfig) -> None:
        self._material, self._config = material, config
        settings = config.strength
        self._texts = watched_texts(settings.texts, material.validation, settings.n_texts)
        self._replies, self._perplexity = self._of_texts(Plan(config.main, ()), 0.0)

    def judge(self, plan: Plan, strength: float) -> Judged:
        material, evaluate = self._material, self._config.evaluate
        edits = plan.edits(strength, material.saes)
        replies, perplexity = self._replies, self._perplexity
        if edits or plan.instruction:
            replies, perplexity = self._of_texts(plan, strength)
        score = goal(material.validation, replies, self._config.strength.towards, evaluate.within)
        ratio = None
        if perplexity is not None and self._perplexity:
            ratio = perplexity / self._perplexity
        moved = drifted(material.model, self._texts, edits)
        return judged(plan, strength, score, replies, moved, material.norms, ratio)

    def _of_texts(self, plan: Plan, strength: float) -> tuple[list[Reply], float | None]:
        material = self._material
        replies = material.replies(plan.edits(strength, material.saes), plan.instruction)
        if material.data.asking.way != "texts":
            return replies, None
        asking = material.data.asking_with(plan.instruction)
        found = text_perplexity(material.model, material.validation, replies, asking)
        return replies, found


def tried_frame(recipe: str, tried: Sequence[Tried]) -> pl.DataFrame:
    rows = [
        {"recipe": recipe, "strength": one.strength, **one.judged._asdict(), "refused": one.refused}
        for one in tried
    ]
    return pl.DataFrame(rows, schema=_TRIED_SCHEMA)


def with_fixed(chosen: pl.DataFrame, config: SteeringConfig) -> pl.DataFrame:
    """A row for each recipe, in their order."""
    found = {row["recipe"]: row for row in chosen.iter_rows(named=True)}
    for recipe in config.all_recipes:
        if recipe.strength is not None:
            found[recipe.name] = _chosen(recipe.name, recipe.strength, True, "fixed by the recipe")
    for recipe in config.all_recipes:
        if recipe.control and recipe.strength is None:
            pattern = pattern_of(recipe, config.all_recipes) or config.main
            strength, note = found[pattern.name]["strength"], f"as strong as {pattern.name}"
            if strength == 0:
                strength, note = 1.0, f"{pattern.name} is judged at strength 0, and this at 1"
            found[recipe.name] = _chosen(recipe.name, strength, True, note)
    rows = [found[recipe.name] for recipe in config.all_recipes]
    return pl.DataFrame(rows, schema=_CHOSEN_SCHEMA)


def load_chosen(run: Run) -> dict[str, float]:
    """Name of a recipe -> its strength."""
    frame = pl.read_parquet(run.step_folder(TUNE) / CHOSEN)
    return dict(zip(frame["recipe"], frame["strength"], strict=True))


def _chosen(recipe: str, strength: float, is_better: bool, note: str) -> dict[str, object]:
    return {"recipe": recipe, "strength": strength, "is_any_better": is_better, "note": note}
