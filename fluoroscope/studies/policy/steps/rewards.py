"""The score of every action for every sample, by enumeration (`rewards/`).

rewards/SET-TASK-SIDE.safetensors   see `enumeration.ScoreTable`
rewards/samples.parquet             a row a sample, in the order of the tables, with its part

The main task on all sides and with all sets of candidates; other tasks on the test side with the
best. Only of tasks whose rewards can be enumerated; of others `steps/statics.py`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_data import TaskData, load_task
from fluoroscope.steps.task_parts import check_within, part_of
from fluoroscope.studies.policy.config import BEST, PolicyConfig
from fluoroscope.studies.policy.enumeration import ScoreTable, enumerate_scores
from fluoroscope.studies.policy.steps.candidates import (
    CANDIDATES,
    chosen_candidates,
    load_candidates,
)
from fluoroscope.studies.policy.table_files import joined, load_scores, save_scores

REWARDS = "rewards"
SAMPLES = "samples.parquet"
_TABLE = "table.safetensors"
_ROUNDING = 1e-5
"""A change of reward that is none: noise of passes in float32."""


class Enumerated(NamedTuple):
    """A table: which candidates, which task, which side."""

    set: str
    task: str
    side: Split

    @property
    def file(self) -> str:
        return f"{self.set.replace(' ', '-')}-{self.task}-{self.side}.safetensors"


class RewardsStep(MapStep):
    name = REWARDS

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), CANDIDATES)

    def cost(self) -> Cost:
        # A prompt is read once; an action costs its last token, where a prompt has about a hundred.
        config = self.config
        n_actions = config.candidates.n * len(config.candidates.multiples)
        times = 2.0 * (1 + n_actions / 50) * len(config.sets)
        return task_cost(config, config.task, times)

    def tables(self) -> Iterator[Enumerated]:
        config = self.config
        if config.is_enumerated:
            for name in config.sets:
                for side in SPLITS:
                    yield Enumerated(name, config.task.name, side)
        for task in config.evaluate.others:
            yield Enumerated(BEST, task.name, "test")

    def shards(self, run: Run) -> Sequence[Shard]:
        for samples in load_data(run, self.config, self.config.task.name).sides.values():
            check_within(samples, self.config.evaluate.within)
        return [shard for table in self.tables() for shard in self._shards(run, table)]

    def _shards(self, run: Run, table: Enumerated) -> list[Shard]:
        n = len(load_data(run, self.config, table.task).sides[table.side])
        size = self.config.evaluate.samples_per_shard
        stem = table.file.partition(".")[0]
        return [
            Shard(f"{stem}-{start:06d}", {**table._asdict(), "from": start, "to": start + size})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, asked = self.config, dict(shard.params)
        model = load_model(run, config.model, context.device)
        data = load_data(run, config, asked["task"], context.device)
        samples = data.sides[asked["side"]][asked["from"] : asked["to"]]
        candidates = load_candidates(run, config, asked["set"], context.device)
        scores = enumerate_scores(
            model,
            candidates,
            samples,
            data.asking,
            is_masked=config.learn.is_masked,
            sink=context.sink,
        )
        save_scores(scores, context.folder / _TABLE)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        rows: list[dict[str, str]] = []
        for table in self.tables():
            keys = [shard.key for shard in self._shards(run, table)]
            scores = joined([load_scores(folder / "shards" / key / _TABLE) for key in keys])
            save_scores(scores, folder / table.file)
            if table.set == BEST:
                samples = load_data(run, self.config, table.task).sides[table.side]
                within = self.config.evaluate.within
                rows += sample_rows(samples, table, within if table.task == self._main else None)
                if table.task == self._main and table.side == "train":
                    self._check_varies(run, scores)
        write_parquet(folder / SAMPLES, pl.DataFrame(rows))

    @property
    def _main(self) -> str:
        return self.config.task.name

    def _check_varies(self, run: Run, scores: ScoreTable) -> None:
        rewards = scores.worth(self.config.towards).rewards
        if float((rewards.amax(dim=1) - rewards.amin(dim=1)).amax()) <= _ROUNDING:
            raise ConfigError(nothing_varies(run, self.config, f"in all {len(rewards)} samples"))


def nothing_varies(run: Run, config: PolicyConfig, where: str) -> str:
    """What is said where no action changes the reward, with what was tried."""
    rows = chosen_candidates(run, BEST)
    tried = ", ".join(
        f"{point} {latent}"
        for point, latent in rows.select("hook_point", "latent").head(8).iter_rows()
    )
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    times = ", ".join(f"{one:g}" for one in config.candidates.multiples)
    return (
        f"The reward of {config.task.name} is the same whatever the policy does, {where}, so there "
        f"is nothing to learn. Tried: {tried}{more}, each {times} times its usual activation. Take "
        "larger candidates.multiples, other candidates.hook_points, or a way of judging that is "
        "finer than right and wrong (task.way)."
    )


def sample_rows(
    samples: Sequence[Sample], table: Enumerated, within: str | None
) -> list[dict[str, str]]:
    return [
        {
            "task": table.task,
            "side": table.side,
            "id": sample.id,
            "group": sample.group_id,
            "part": part_of(sample, within),
            "prompt": sample.prompt,
        }
        for sample in samples
    ]


def load_data(run: Run, config: PolicyConfig, task: str, device: str = "cpu") -> TaskData:
    return load_task(run, config.model, config.tasks[task], config.data_dir, config.seed, device)


def load_table(run: Run, name: str, task: str, side: Split) -> ScoreTable:
    """Read once in each process."""
    file = Enumerated(name, task, side).file
    return run.cached((REWARDS, file), lambda: load_scores(run.step_folder(REWARDS) / file))
