"""The test side under every recipe, beside the unsteered model (`evaluate/`).

evaluate/replies.parquet    a row a trial and sample, with its reply: see `steps/replies_table.py`
evaluate/results.parquet    a row a trial: comparison with the unsteered model, drift
evaluate/parts.parquet      the same by category, or by the fact that `evaluate.within` names
evaluate/vectors/           steering vectors of the recipes that add, for `fluoro steer`

A trial is a recipe at a strength on a task; the unsteered model is the trial without a recipe.
`is_steered` says whether a trial does anything to the model. Where it does nothing (strength 0, or
nothing was found), the difference is 0 by construction and not by measurement, and so are its ends.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import Captured, Reply, reply_all
from fluoroscope.interventions.replies.comparing import compare, compare_by
from fluoroscope.interventions.replies.drift import Drift
from fluoroscope.interventions.replies.quality import quality
from fluoroscope.interventions.vectors import save_vector
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.collect import COLLECT
from fluoroscope.steps.models import load_model
from fluoroscope.steps.replies_table import replies_frame, replies_of
from fluoroscope.steps.subject import load_layers, sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_data import TaskData, load_task
from fluoroscope.steps.task_parts import part_of
from fluoroscope.steps.task_spec import TaskSpec
from fluoroscope.studies.steering.config import SteeringConfig, file_name
from fluoroscope.studies.steering.judging import drifted, watched_texts
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.steps.select import SELECT, load_plans
from fluoroscope.studies.steering.steps.tune import TUNE, load_chosen

EVALUATE = "evaluate"
RESULTS, PARTS, REPLIES, VECTORS = "results.parquet", "parts.parquet", "replies.parquet", "vectors"
_DRIFT = "drift.json"
UNSTEERED = ""
"""In place of a recipe's name."""

UNMOVED = dict.fromkeys(("difference", "difference_low", "difference_high"), 0.0)


class Trial(NamedTuple):
    recipe: str
    task: str
    strength: float
    is_swept: bool
    """Whether it is there for the sweep over strengths alone."""


class EvaluateStep(MapStep):
    name = EVALUATE

    def __init__(self, config: SteeringConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), COLLECT, SELECT, TUNE)

    def cost(self) -> Cost:
        n = len(self.config.all_recipes) + len(self._swept()) + 1
        return task_cost(self.config, self.config.task, n, samples=1000)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(f"{i:04d}", trial._asdict()) for i, trial in enumerate(self.trials(run))]

    def trials(self, run: Run) -> list[Trial]:
        """The unsteered model first, on every task."""
        config, chosen = self.config, load_chosen(run)
        everywhere = {recipe.name for recipe in self._compared()}
        trials = [Trial(UNSTEERED, task, 0.0, False) for task in self.tasks]
        for recipe in config.all_recipes:
            tasks = self.tasks if recipe.name in everywhere else [config.task.name]
            trials += [Trial(recipe.name, task, chosen[recipe.name], False) for task in tasks]
        main = config.main.name
        return trials + [Trial(main, config.task.name, s, True) for s in self._swept()]

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """By name, the main one first."""
        return {task.name: task for task in (self.config.task, *self.config.evaluate.others)}

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        trial = Trial(**shard.params)
        model = load_model(run, self.config.model, context.device)
        saes = load_layers(run, self.config, context.device, model.identity)
        plan = load_plans(run, self.config).get(trial.recipe, Plan(self.config.main, ()))
        data = self.data(run, trial.task, context.device)
        samples = data.sides["test"]
        edits = plan.edits(trial.strength, saes)
        n_done = 0

        def count(_place: int, _reply: Reply, _captured: Captured) -> None:
            nonlocal n_done
            n_done += 1
            context.sink.progress(n_done, len(samples), "samples")

        asking = data.asking_with(plan.instruction)
        replies = reply_all(model, samples, asking, edits, on_reply=count)
        write_parquet(context.folder / REPLIES, replies_frame(samples, replies))
        settings = self.config.strength
        texts = watched_texts(settings.texts, samples, settings.n_texts)
        write_json(context.folder / _DRIFT, without_nan(drift_row(drifted(model, texts, edits))))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        trials = self.trials(run)
        frames = [
            pl.read_parquet(folder / "shards" / f"{i:04d}" / REPLIES) for i in range(len(trials))
        ]
        before = {
            trial.task: frame
            for trial, frame in zip(trials, frames, strict=True)
            if trial.recipe == UNSTEERED
        }
        plans = load_plans(run, self.config)
        results, parts = [], []
        for i, (trial, frame) in enumerate(zip(trials, frames, strict=True)):
            drift = read_json(folder / "shards" / f"{i:04d}" / _DRIFT)
            samples = self.data(run, trial.task).sides["test"]
            steered = is_steered(trial, plans)
            result = self._result(before[trial.task], frame)
            result = result if steered else {**result, **UNMOVED}
            results.append({**trial._asdict(), "is_steered": steered, **result, **drift})
            if not trial.is_swept:
                part = self._by_part(trial, samples, before[trial.task], frame)
                part = part if steered else part.with_columns(**UNMOVED)
                parts.append(part.with_columns(is_steered=pl.lit(steered)))
            sink.progress(i + 1, len(trials), "trials")
        found = pl.DataFrame(results, infer_schema_length=None)
        # Where no trial has an interval, its ends are numbers all the same.
        write_parquet(folder / RESULTS, found.with_columns(pl.col(pl.Null).cast(pl.Float64)))
        write_parquet(folder / PARTS, pl.concat(parts, how="diagonal_relaxed"))
        named = [
            frame.with_columns(**{k: pl.lit(v) for k, v in trial._asdict().items()})
            for trial, frame in zip(trials, frames, strict=True)
        ]
        write_parquet(folder / REPLIES, pl.concat(named))
        self._save_vectors(run, folder / VECTORS)

    def data(self, run: Run, task: str, device: str = "cpu") -> TaskData:
        config = self.config
        return load_task(
            run,
            config.model,
            self.tasks[task],
            config.data_dir,
            config.seed,
            device,
            config.instruction,
        )

    def _result(self, before: pl.DataFrame, after: pl.DataFrame) -> dict[str, object]:
        found = compare(
            replies_of(before), replies_of(after), before["group"].to_list(), self.config.seed
        ).row()
        described = quality(
            after["text"].to_list(), after["is_readable"].to_list(), after["group"].to_list()
        )
        return {
            **found,
            "distinct_1": _plain(described.distinct_1.value),
            "distinct_2": _plain(described.distinct_2.value),
            "repetition": _plain(described.repetition.value),
            "n_words": _plain(described.n_words.value),
            "n_edits": int(after["n_edits"].sum()),
        }

    def _by_part(
        self, trial: Trial, samples: Sequence[Sample], before: pl.DataFrame, after: pl.DataFrame
    ) -> pl.DataFrame:
        within = self.config.evaluate.within if trial.task == self.config.task.name else None
        found = compare_by(
            replies_of(before),
            replies_of(after),
            before["group"].to_list(),
            [part_of(sample, within) for sample in samples],
            self.config.seed,
        )
        return found.with_columns(recipe=pl.lit(trial.recipe), task=pl.lit(trial.task))

    def _compared(self) -> list:
        """Recipes that are judged on every task: all but what is varied of the main one."""
        return [one for one in self.config.all_recipes if not one.varied]

    def _swept(self) -> list[float]:
        return self.config.evaluate.sweep or self.config.strength.grid

    def _save_vectors(self, run: Run, folder: Path) -> None:
        model = load_model(run, self.config.model, "cpu")
        folder.mkdir(exist_ok=True)
        chosen = load_chosen(run)
        for name, plan in load_plans(run, self.config).items():
            if plan.parts and plan.recipe.action == "add" and chosen[name]:
                file = file_name(name)
                save_vector(plan.vector(chosen[name], model.identity), folder / file)


def is_steered(trial: Trial, plans: Mapping[str, Plan]) -> bool:
    """Whether it does anything to the model."""
    plan = plans.get(trial.recipe)
    return plan is not None and bool(plan.instruction or (plan.parts and trial.strength))


def drift_row(found: Drift | None) -> dict[str, float | int | None]:
    """Of the unsteered model nothing drifts."""
    if found is None:
        zero, one = dict.fromkeys(("kl", "kl_low", "kl_high"), 0.0), 1.0
        return {**zero, **dict.fromkeys(("perplexity_ratio", *_ratio_ends()), one)}
    return {
        **dict(zip(("kl", "kl_low", "kl_high"), map(_plain, found.kl), strict=True)),
        **dict(
            zip(
                ("perplexity_ratio", *_ratio_ends()),
                map(_plain, found.perplexity_ratio),
                strict=True,
            )
        ),
    }


def _ratio_ends() -> tuple[str, str]:
    return "perplexity_ratio_low", "perplexity_ratio_high"


def _plain(value: float) -> float | None:
    return None if value != value else float(value)
