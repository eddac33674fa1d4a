"""The layer of each data set, by the method that was asked for; and by all of the others.

choose/choices.json   data set -> method -> layer; `chosen` is what the main arm takes
"""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep, Shard, ShardContext
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.selection.methods import choose_layer
from fluoroscope.studies.plugin.steps.halve import SECOND, halved_layer, halves
from fluoroscope.studies.plugin.steps.select import SELECT, load_scores
from fluoroscope.studies.plugin.steps.texts import set_key

CHOOSE = "choose"
CHOICES = "choices.json"


class ChooseStep(MapStep):
    name = CHOOSE

    def __init__(self, config: PluginConfig) -> None:
        self.config = config
        self.inputs = (SELECT, *((SECOND,) if halves(config) else ()))

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(set_key(name), {"dataset": name}) for name in self.config.datasets]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, name = self.config, str(shard.params["dataset"])
        scores = load_scores(run, name)
        chosen = {method: choose_layer(scores, method) for method in scores.methods}
        if halves(config):
            chosen["halving"] = halved_layer(run, config, name)
        write_json(
            context.folder / CHOICES, {"chosen": chosen[config.selection.method], "by": chosen}
        )
        context.sink.message(
            f"{name}: layer {chosen[config.selection.method]} of {config.n_layers}, by "
            f"{config.selection.method}."
        )

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        found = {
            name: read_json(folder / "shards" / set_key(name) / CHOICES)
            for name in self.config.datasets
        }
        write_json(folder / CHOICES, found)


def choices_of(run: Run, dataset: str) -> dict[str, int]:
    """Method -> the layer that it would have taken."""
    return read_json(run.step_folder(CHOOSE) / CHOICES)[dataset]["by"]


def chosen_layer(run: Run, config: PluginConfig, dataset: str) -> int | None:
    """Of the main arm; None where no layer is plugged in."""
    match config.mode:
        case "base":
            return None
        case "pifi":
            return config.layer
        case "pifi_ilm":
            return int(read_json(run.step_folder(CHOOSE) / CHOICES)[dataset]["chosen"])
