"""Successive halving: short trainings of the layers that score well, longer ones of the best.

Two rounds (`selection.keep` layers, `selection.shares` of a whole training), judged by the loss
on the validation side; the last layer and the middle one are always among the first.

halve-first/shards/SET.ARM.SEED/state.json    validation loss of a layer's short training
halve-first/losses.json                       data set -> layer -> loss; so too halve-second
"""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, Loop, LoopStep, Shard, ShardContext
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.selection.halving import first_round, next_round
from fluoroscope.studies.plugin.steps.cost import training_cost
from fluoroscope.studies.plugin.steps.read import READ
from fluoroscope.studies.plugin.steps.select import SELECT, load_scores
from fluoroscope.studies.plugin.steps.texts import TEXTS
from fluoroscope.studies.plugin.steps.training_loop import STATE, Training, TrainLoop

FIRST, SECOND = "halve-first", "halve-second"
LOSSES = "losses.json"


def halves(config: PluginConfig) -> bool:
    """Whether layers are tried by short trainings."""
    selection = config.selection
    return config.chooses and "halving" in (selection.method, *selection.also)


class HalveStep(LoopStep):
    """One round: 0 or 1."""

    def __init__(self, config: PluginConfig, number: int) -> None:
        self.config, self.number = config, number
        self.name = (FIRST, SECOND)[number]
        self.inputs = (TEXTS, READ, SELECT, *((FIRST,) if number else ()))

    def cost(self) -> Cost:
        selection = self.config.selection
        n = min(selection.keep[self.number], self.config.n_layers)
        return training_cost(self.config, n_arms=n, n_seeds=1, share=selection.shares[self.number])

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(one.key, one.params) for one in self._trainings(run)]

    def _trainings(self, run: Run) -> list[Training]:
        config = self.config
        return [
            Training(name, config.main_arm(layer), config.seed)
            for name in config.datasets
            for layer in self._layers(run, name)
        ]

    def _layers(self, run: Run, dataset: str) -> list[int]:
        config = self.config
        if self.number == 0:
            ranked = load_scores(run, dataset).by_method()
            return first_round(ranked, config.n_layers, config.selection.keep[0])
        return next_round(_losses(run, FIRST, dataset), config.selection.keep[1])

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        one = next(one for one in self._trainings(run) if one.key == shard.key)
        share = self.config.selection.shares[self.number]
        return _Trial(run, self.config, one, context.device, is_main=False, share=share)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        losses: dict[str, dict[str, float]] = {name: {} for name in self.config.datasets}
        for one in self._trainings(run):
            state = read_json(folder / "shards" / one.key / STATE)
            losses[one.dataset][str(one.arm.layer)] = state["validation_loss"]
        write_json(folder / LOSSES, losses)


class _Trial(TrainLoop):
    """A training that ends early, and of which the validation loss is all that is kept."""

    def finish(self, folder: Path, sink: Sink) -> None:
        best = min(row["validation_loss"] for row in self.trainer.result().curve)
        write_json(folder / STATE, {**self.training.params, "validation_loss": best})


def halved_layer(run: Run, dataset: str) -> int:
    """The layer that the second round ends with."""
    return next_round(_losses(run, SECOND, dataset), 1)[0]


def _losses(run: Run, step: str, dataset: str) -> dict[int, float]:
    found = read_json(run.step_folder(step) / LOSSES)[dataset]
    return {int(layer): loss for layer, loss in found.items()}
