"""The toy world, solved by the code that trains policies (`toy/`).

toy/values.parquet   a row an objective and seed: its value, the optimum, and what simple ways get

Its optimum is known in closed form, so that a policy that falls short here is the trainer's fault
and not the model's. Always run: it takes seconds.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.policy.config import EXACT, Mode, PolicyConfig
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.toy import ToySource, ToyWorld
from fluoroscope.studies.policy.training import BanditTrainer, PolicyTrainer, Trainer
from fluoroscope.studies.policy.training_config import PolicyTrainingConfig

TOY = "toy"
VALUES = "values.parquet"
ENOUGH = 0.95
"""Of the optimum, from which the toy world counts as solved."""

_STATES = 512
_EXACT_ITERATIONS = 150
_TEXT_ITERATIONS = 100


class ToyStep(MapStep):
    name = TOY

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        return Cost(overhead_s=3.0 * len(self._modes()), parallel=len(self._modes()))

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(mode, {"mode": mode}) for mode in self._modes()]

    def _modes(self) -> list[Mode]:
        """The exact gradient, and the objective that texts are learnt by."""
        return [EXACT, self.config.learn.training.objective]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        mode, seed = shard.params["mode"], self.config.seed
        world = ToyWorld(seed=seed)
        trainer = toy_trainer(world, mode, seed)
        value = world.value(trainer.train(context.sink))
        row = {
            "mode": mode,
            "value": value,
            "optimum": world.optimum,
            "share": value / world.optimum,
            "never": 0.0,
            "always": world.always,
            "uniform": world.uniform,
        }
        write_parquet(context.folder / VALUES, pl.DataFrame([row]))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        files = [folder / "shards" / shard.key / VALUES for shard in self.shards(run)]
        write_parquet(folder / VALUES, pl.concat([pl.read_parquet(file) for file in files]))


def toy_trainer(world: ToyWorld, mode: Mode, seed: int) -> Trainer:
    """Whose policy solves the world, at settings of the world's own."""
    head = PolicyHead(world.d_model, 4, world.n_actions, seed=seed)
    table = world.table(_STATES, seed)
    head.calibrate(table.observations)
    if mode == "exact":
        config = PolicyTrainingConfig(price=world.price, learning_rate=0.03)
        return BanditTrainer(head, table, config, _EXACT_ITERATIONS)
    config = PolicyTrainingConfig(
        objective=mode, price=world.price, learning_rate=0.05, batch_size=512
    )
    source = ToySource(world, config.n_prompts, config.group_size, seed)
    return PolicyTrainer(head, source, config, _TEXT_ITERATIONS, seed)
