"""Every arm is trained, for every question set and seed; each goes on where it was stopped.

train/shards/SET.ARM.SEED/curve.parquet        a row a look at the validation side
train/shards/SET.ARM.SEED/answers.parquet      a row a question of the validation and test sides
train/shards/SET.ARM.SEED/facts.safetensors    graph, shares and trajectories, of slot networks
train/shards/SET.ARM.SEED/trained.safetensors  weights of the best look, where they are kept
train/shards/SET.ARM.SEED/state.json           what was trained, and what it is like inside
train/curves.parquet, train/answers.parquet, train/trainings.parquet    all of them together
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_parquet
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, Loop, LoopStep, Shard, ShardContext
from fluoroscope.studies.connection.arms import steps_of_arm
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.steps.cost import training_cost
from fluoroscope.studies.connection.steps.questions import QUESTIONS
from fluoroscope.studies.connection.steps.training_loop import (
    ANSWERS,
    CURVE,
    STATE,
    Training,
    TrainingLoop,
)

TRAIN = "train"
CURVES, TRAININGS = "curves.parquet", "trainings.parquet"


class TrainStep(LoopStep):
    name, inputs = TRAIN, (QUESTIONS,)

    def __init__(self, config: ConnectionConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        return training_cost(self.config, self.config.arms, self.config.data.sets)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [one.shard for one in trainings(self.config)]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        return TrainingLoop(run, self.config, Training.of(shard), context.device)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        merge_trainings(folder, self.shards(run))


def trainings(config: ConnectionConfig) -> list[Training]:
    """The main arm of every set first, so that what was asked for is there first."""
    arms = list(dict.fromkeys(config.arms))
    found = [
        (place, _training(config, dataset, arm, seed))
        for dataset in dict.fromkeys(config.data.sets)
        for place, arm in enumerate(arms)
        for seed in config.all_seeds
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0] > 0)]


def _training(config: ConnectionConfig, dataset: str, arm: str, seed: int) -> Training:
    is_kept, steps = _is_kept(config, arm), steps_of_arm(arm)
    return Training(dataset, arm, seed, config.network, arm, is_kept, steps)


def _is_kept(config: ConnectionConfig, arm: str) -> bool:
    return config.keep == "all" or (config.keep == "main" and arm == config.main_arm)


def training_name(step: str, key: str) -> str:
    """What a user calls a training: `SET.ARM.SEED`, and `PHASE/SET.ARM.SEED` of a sweep."""
    return key if step == TRAIN else f"{step}/{key}"


def merge_trainings(folder: Path, shards: Sequence[Shard]) -> None:
    """All shards' tables as one of each kind."""
    for name, merged in ((CURVE, CURVES), (ANSWERS, ANSWERS)):
        frames = [_labelled(folder, shard, name) for shard in shards]
        write_parquet(folder / merged, pl.concat(frames, how="diagonal_relaxed"))
    rows = []
    for shard in shards:
        state = read_json(folder / "shards" / shard.key / STATE)
        rows.append(
            {
                **Training.of(shard).labels,
                **{name: state[name] for name in ("best_step", "n_steps", "parts")},
                **state["parameters"],
                **(state["facts"] or {}),
            }
        )
    write_parquet(folder / TRAININGS, pl.DataFrame(rows, infer_schema_length=None))


def _labelled(folder: Path, shard: Shard, name: str) -> pl.DataFrame:
    """A shard's table, with whose it is."""
    labels = (pl.lit(value).alias(key) for key, value in Training.of(shard).labels.items())
    return pl.read_parquet(folder / "shards" / shard.key / name).select(*labels, pl.all())
