"""The layer of each data set, by the method that was asked for; and by all of the others.

choose/choices.json                data set -> method -> layer; `chosen` is what the main arm takes
choose/shards/SET/selection.json   the plan's own file of the choice
"""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep, Shard, ShardContext
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.selection.methods import choose_layer, selection_record
from fluoroscope.studies.plugin.steps.halve import SECOND, halved_layer, halves
from fluoroscope.studies.plugin.steps.loaded import texts_of
from fluoroscope.studies.plugin.steps.select import SELECT, load_scores
from fluoroscope.studies.plugin.steps.texts import TEXTS, set_key

CHOOSE = "choose"
CHOICES, SELECTION = "choices.json", "selection.json"


class ChooseStep(MapStep):
    name = CHOOSE

    def __init__(self, config: PluginConfig) -> None:
        self.config = config
        self.inputs = (TEXTS, SELECT, *((SECOND,) if halves(config) else ()))

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(set_key(name), {"dataset": name}) for name in self.config.datasets]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, name = self.config, str(shard.params["dataset"])
        scores, method = load_scores(run, name), config.selection.method
        chosen = {one: choose_layer(scores, one) for one in (*scores.methods, "last", "middle")}
        if halves(config):
            chosen["halving"] = halved_layer(run, name)
        write_json(context.folder / CHOICES, {"chosen": chosen[method], "by": chosen})
        record = selection_record(
            scores,
            method,
            chosen[method],
            config.selection.ilm,
            config.seed,
            task=texts_of(run, name).task,
            dataset=name,
            slm_type=config.model.source,
            llm_type=config.llm.source,
        )
        write_json(context.folder / SELECTION, record)
        context.sink.message(
            f"{name}: layer {chosen[method]} of 0 to {config.n_layers - 1}, by {method}."
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
