"""Every arm is trained, for every data set and seed; each training goes on where it was stopped.

train/shards/SET.ARM.SEED/curve.parquet          a row an epoch
train/shards/SET.ARM.SEED/predictions.parquet    a row an example of the validation and test sides
train/shards/SET.ARM.SEED/trained.safetensors    the tensors that learnt, of the best epoch
train/shards/SET.ARM.SEED/state.json             what they were trained from, and how they do
train/curves.parquet, train/scores.parquet, train/predictions.parquet   all of them together

The layer is frozen and stands in state.json by its identity alone.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_parquet
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, Loop, LoopStep, Shard, ShardContext
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.steps.choose import CHOOSE, chosen_layer
from fluoroscope.studies.plugin.steps.cost import training_cost
from fluoroscope.studies.plugin.steps.read import READ
from fluoroscope.studies.plugin.steps.texts import TEXTS
from fluoroscope.studies.plugin.steps.training_loop import (
    CURVE,
    PREDICTIONS,
    STATE,
    Training,
    TrainLoop,
)

TRAIN = "train"
CURVES, SCORES = "curves.parquet", "scores.parquet"


class TrainStep(LoopStep):
    name = TRAIN

    def __init__(self, config: PluginConfig) -> None:
        self.config = config
        reads = (READ,) if config.reads_llm else ()
        self.inputs = (TEXTS, *reads, *((CHOOSE,) if config.chooses else ()))

    def cost(self) -> Cost:
        return training_cost(self.config)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(one.key, one.params) for one in trainings(run, self.config)]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        one = next(one for one in trainings(run, self.config) if one.key == shard.key)
        layer = chosen_layer(run, self.config, one.dataset)
        is_main = one.arm == self.config.main_arm(layer)
        return TrainLoop(run, self.config, one, context.device, is_main=is_main)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        shards = self.shards(run)
        for name, merged in ((CURVE, CURVES), (PREDICTIONS, PREDICTIONS)):
            frames = [
                pl.read_parquet(folder / "shards" / shard.key / name).select(
                    *(pl.lit(value).alias(key) for key, value in shard.params.items()), pl.all()
                )
                for shard in shards
            ]
            write_parquet(folder / merged, pl.concat(frames, how="diagonal_relaxed"))
        rows = [
            {**shard.params, **row}
            for shard in shards
            for row in read_json(folder / "shards" / shard.key / STATE)["scores"]
        ]
        write_parquet(folder / SCORES, pl.DataFrame(rows, infer_schema_length=None))


def trainings(run: Run, config: PluginConfig) -> list[Training]:
    """The main arm of every data set first, so that what was asked for is there first."""
    found = [
        (place, Training(name, arm, seed))
        for name in config.datasets
        for place, arm in enumerate(config.arms(chosen_layer(run, config, name)))
        for seed in config.all_seeds
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0] > 0)]


def read_train(run: Run, file: str) -> pl.DataFrame:
    """A merged table of all trainings: CURVES, SCORES or PREDICTIONS."""
    return pl.read_parquet(run.step_folder(TRAIN) / file)
