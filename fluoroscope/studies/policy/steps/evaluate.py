"""The test side: what policies get beside the optimum, static steering and controls (`evaluate/`).

evaluate/values.parquet     a row a way to act, task and part; `seed` is null for the mean of the
                            trainings and for what is not trained
evaluate/replies.parquet    generated replies, where policies are trained by texts
evaluate/choices.parquet    how often each action is taken, by policy and part

Tables of scores give expected values without any drawing (`judging.py`). Policies that were trained
by texts are judged by them as well where there are tables, and by generated replies in any case,
beside never acting and the best static action under the same luck.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_data import TaskData
from fluoroscope.steps.task_parts import part_of
from fluoroscope.studies.policy.bandit import RewardTable
from fluoroscope.studies.policy.config import BEST, Mode, PolicyConfig
from fluoroscope.studies.policy.judging import (
    CONTROL,
    CONTROL_GREEDY,
    EVERYWHERE,
    GREEDY,
    NEVER,
    ORACLE,
    POLICY,
    STATIC,
    Judge,
    Outcome,
    Shares,
    best_multiple,
    mean_outcome,
    outcome_row,
)
from fluoroscope.studies.policy.steps.candidates import (
    CANDIDATES,
    chosen_candidates,
    load_candidates,
)
from fluoroscope.studies.policy.steps.learn import LEARN, load_head
from fluoroscope.studies.policy.steps.rewards import REWARDS, SAMPLES, load_data, load_table
from fluoroscope.studies.policy.steps.statics import STATICS, best_static_of_texts
from fluoroscope.studies.policy.written import (
    Holder,
    by_action,
    by_head,
    in_turns,
    mean_by_sample,
    written,
)

EVALUATE = "evaluate"
VALUES, CHOICES, REPLIES = "values.parquet", "choices.parquet", "replies.parquet"
TABLES = "tables"
"""The shard that looks at tables."""

FROM_TABLE, FROM_TEXTS = "exact", "replies"
"""Where a value is from."""


class Way(NamedTuple):
    """A row of results, before it is told by parts."""

    method: str
    mode: str
    set: str
    seed: int | None
    outcome: Outcome


class TextTrial(NamedTuple):
    """Who acts while replies are generated."""

    method: str
    mode: str
    seed: int | None


class EvaluateStep(MapStep):
    name = EVALUATE

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        before = (REWARDS,) if config.is_enumerated else (STATICS,)
        others = (REWARDS,) if config.evaluate.others and not config.is_enumerated else ()
        self.inputs = (*sae_inputs(config), CANDIDATES, *before, *others, LEARN)

    def cost(self) -> Cost:
        evaluate = self.config.evaluate
        n = len(self._trials()) * evaluate.texts * evaluate.replies
        return task_cost(self.config, self.config.task, 1 if n else 0.01, samples=max(n, 1))

    def shards(self, run: Run) -> Sequence[Shard]:
        trials = [
            Shard(f"{number:03d}", trial._asdict()) for number, trial in enumerate(self._trials())
        ]
        return [Shard(TABLES), *trials]

    def _trials(self) -> list[TextTrial]:
        config = self.config
        if not config.text_modes:
            return []
        learnt = [
            TextTrial(method, mode, seed)
            for mode in config.text_modes
            for method in (POLICY, GREEDY)
            for seed in range(config.learn.seeds)
        ]
        return [TextTrial(NEVER, "", None), TextTrial(STATIC, "", None), *learnt]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        if shard.key != TABLES:
            self._write(run, TextTrial(**shard.params), context)
            return
        values, choices = [], []
        for task in self.config.tasks:
            if task != self.config.task.name or self.config.is_enumerated:
                rows, taken = self._of_tables(run, task)
                values += rows
                choices += taken
        schema = None if values else {"method": pl.String}
        write_parquet(
            context.folder / VALUES, pl.DataFrame(values, schema, infer_schema_length=None)
        )
        write_parquet(context.folder / CHOICES, pl.DataFrame(choices, infer_schema_length=None))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        tables = folder / "shards" / TABLES
        frames = [pl.read_parquet(tables / VALUES)]
        write_parquet(folder / CHOICES, pl.read_parquet(tables / CHOICES))
        trials = self._trials()
        if trials:
            replies = [
                pl.read_parquet(folder / "shards" / f"{number:03d}" / REPLIES)
                for number in range(len(trials))
            ]
            frames.append(self._of_texts(run, trials, replies))
            named = [
                frame.with_columns(
                    method=pl.lit(trial.method),
                    mode=pl.lit(trial.mode),
                    seed=pl.lit(trial.seed, pl.Int64),
                )
                for trial, frame in zip(trials, replies, strict=True)
            ]
            write_parquet(folder / REPLIES, pl.concat(named))
        write_parquet(folder / VALUES, pl.concat(frames, how="diagonal_relaxed"))

    def _of_tables(
        self, run: Run, task: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # Any: values of a table.
        is_main = task == self.config.task.name
        best = self._judge(run, BEST, task, "test")
        static, multiple = self._fitted(run, best)
        n_multiples = len(self.config.candidates.multiples)
        shares = best.ways(static, multiple, n_multiples)
        ways = [Way(name, "", BEST, None, best.outcome(own)) for name, own in shares.items()]
        effects: dict[tuple[str, str, int | None], Shares] = {
            (name, "", None): own for name, own in shares.items() if name != NEVER
        }
        choices: list[dict[str, Any]] = []
        samples = load_samples(run).filter(task=task, side="test")
        for mode in self.config.modes:
            for name in self.config.sets_of(mode) if is_main else [BEST]:
                judge = self._judge(run, name, task, "test")
                for way, seed, own in self._learnt(run, judge, mode, name):
                    ways.append(Way(way, mode, name, seed, judge.outcome(own)))
                    if name == BEST and way == GREEDY:
                        effects[way, mode, seed] = own
                    if name == BEST and way == POLICY and is_main:
                        choices += _choices(own, samples["part"].to_list(), mode, seed)
        rows = self._by_part(ways, samples, task, FROM_TABLE)
        found = {
            key: best.side_effect(own, samples["group"].to_list(), self.config.seed)
            for key, own in effects.items()
            if bool((own.amax(dim=1) > 1 - 1e-9).all())
        }
        for row in rows:
            key = (row["method"], row["mode"], row["seed"])
            if row["part"] == EVERYWHERE and row["set"] == BEST:
                row |= found.get(key, {})
        return rows, choices

    def _judge(self, run: Run, name: str, task: str, side: Any) -> Judge:  # Any: a Split.
        training, towards = self.config.learn.training, self.config.towards
        if task != self.config.task.name:
            towards = None
        scores = load_table(run, name, task, side)
        return Judge.of(scores, towards, training.price, training.kl_weight)

    def _fitted(self, run: Run, test: Judge) -> tuple[int, int]:
        """The static action, and the multiple of the most active, that are best for training."""
        config = self.config
        if not config.is_enumerated:
            return best_static_of_texts(run, config.learn.training.price), 0
        train = self._judge(run, BEST, config.task.name, "train")
        returns: RewardTable = train.returns
        return returns.best_static, best_multiple(train, len(config.candidates.multiples))

    def _learnt(
        self, run: Run, judge: Judge, mode: Mode, name: str
    ) -> Iterator[tuple[str, int, Shares]]:
        names = (POLICY, GREEDY) if name == BEST else (CONTROL, CONTROL_GREEDY)
        for seed in range(self.config.learn.seeds):
            own = judge.of_head(load_head(run, self.config, mode, name, seed))
            yield names[0], seed, own
            yield names[1], seed, judge.sure(own.argmax(dim=1))

    def _by_part(
        self, ways: Sequence[Way], samples: pl.DataFrame, task: str, source: str
    ) -> list[dict[str, Any]]:  # Any: values of a table.
        """Of each training, and of the mean over trainings."""
        known = {way.method: way.outcome for way in ways if way.seed is None}
        together = _together(ways)
        parts, groups = samples["part"].to_numpy(), samples["group"].to_list()
        oracle = known.get(ORACLE, known[NEVER])
        main = next(one.outcome for one in together if one.method == POLICY)
        untrained = [way for way in ways if way.seed is None]
        trained = [way for way in ways if way.seed is not None]
        rows = []
        for way in (*untrained, *together, *trained):
            named = {
                "method": way.method,
                "mode": way.mode,
                "set": way.set,
                "seed": way.seed,
                "source": source,
                "task": task,
            }
            for part in (EVERYWHERE, *dict.fromkeys(parts)):
                is_there = (parts == part) | (part == EVERYWHERE)
                found = outcome_row(
                    way.outcome, known[NEVER], oracle, main, groups, is_there, self.config.seed
                )
                sd = together.get(way) if part == EVERYWHERE else None
                rows.append({**named, "part": part, **found, "sd_over_trainings": sd})
        return rows

    def _write(self, run: Run, trial: TextTrial, context: ShardContext) -> None:
        config, evaluate = self.config, self.config.evaluate
        model = load_model(run, config.model, context.device)
        data = load_data(run, config, config.task.name, context.device)
        frame = written(
            model,
            self._holder(run, trial, context.device),
            self._asked(data),
            data.asking,
            Sampling(**config.learn.sampling.model_dump()),
            evaluate.replies,
            config.seed,
            config.towards,
        )
        write_parquet(context.folder / REPLIES, frame)

    def _asked(self, data: TaskData) -> list[Sample]:
        """Samples that replies are generated to: of as many groups as there are."""
        test = data.sides["test"]
        return in_turns(test, [sample.group_id for sample in test], self.config.evaluate.texts)

    def _holder(self, run: Run, trial: TextTrial, device: str) -> Holder:
        config = self.config
        model = load_model(run, config.model, device)
        candidates = load_candidates(run, config, BEST, device)
        if trial.method == NEVER:
            return by_action(model, candidates, 0)
        if trial.seed is None:
            return by_action(model, candidates, self.static(run))
        head = load_head(run, config, trial.mode, BEST, trial.seed)
        head = head.likeliest() if trial.method == GREEDY else head
        return by_head(model, head, candidates, is_masked=config.learn.is_masked)

    def static(self, run: Run) -> int:
        """The action that is best where it is held throughout."""
        if not self.config.is_enumerated:
            return best_static_of_texts(run, self.config.learn.training.price)
        return self._fitted(run, self._judge(run, BEST, self.config.task.name, "train"))[0]

    def _of_texts(
        self, run: Run, trials: Sequence[TextTrial], replies: Sequence[pl.DataFrame]
    ) -> pl.DataFrame:
        config = self.config
        data = load_data(run, config, config.task.name)
        asked = self._asked(data)
        within = config.evaluate.within
        samples = pl.DataFrame(
            {
                "group": [sample.group_id for sample in asked],
                "part": [part_of(sample, within) for sample in asked],
            }
        )
        ways = []
        for trial, frame in zip(trials, replies, strict=True):
            found = mean_by_sample(frame)
            paid = config.learn.training.price * found["n_acted"]
            zeros = np.zeros(len(paid))
            outcome = Outcome(
                found["worth"], found["worth"] - paid, found["score"], found["share"], zeros
            )
            ways.append(Way(trial.method, trial.mode, BEST, trial.seed, outcome))
        rows = self._by_part(ways, samples, config.task.name, FROM_TEXTS)
        # Nobody knows the best action of each text, nor its KL in replies.
        return pl.DataFrame(rows, infer_schema_length=None).with_columns(
            kl=pl.lit(None, pl.Float64)
        )


def _together(ways: Sequence[Way]) -> dict[Way, float | None]:
    """The mean of the trainings of each kind -> the standard deviation of their returns."""
    several: dict[tuple[str, str], list[Way]] = {}
    for way in ways:
        if way.seed is not None:
            several.setdefault((way.method, way.mode), []).append(way)
    found: dict[Way, float | None] = {}
    for (method, mode), mine in several.items():
        sets = {way.set for way in mine}
        returns = [way.outcome.returned.mean() for way in mine]
        mean = mean_outcome([way.outcome for way in mine])
        together = Way(method, mode, sets.pop() if len(sets) == 1 else "random", None, mean)
        found[together] = float(np.std(returns, ddof=1)) if len(returns) > 1 else None
    return found


def _choices(
    shares: Shares, parts: Sequence[str], mode: str, seed: int
) -> list[dict[str, Any]]:  # Any: values of a table.
    found, named = [], np.asarray(parts)
    for part in dict.fromkeys(parts):
        means = shares.numpy()[named == part].mean(axis=0)
        found += [
            {"mode": mode, "seed": seed, "part": part, "action": action, "share": float(share)}
            for action, share in enumerate(means)
        ]
    return found


def load_samples(run: Run) -> pl.DataFrame:
    return pl.read_parquet(run.step_folder(REWARDS) / SAMPLES)


def action_names(run: Run, config: PolicyConfig) -> list[str]:
    """Of each action, for people."""
    rows = chosen_candidates(run, BEST)
    names = ["nothing"]
    for row in rows.iter_rows(named=True):
        for multiple in config.candidates.multiples:
            amount = row["coefficient"] * multiple
            names.append(f"{row['hook_point']} {row['latent']} {amount:+.3g}")
    return names
