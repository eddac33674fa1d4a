"""How often latents are active on texts to forget and on texts to keep (`statistics/`).

statistics/latents.parquet   a row a latent: see `selection.latent_table`
statistics/sets.json         how many texts, samples and people there are on each side
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.unlearning.plans import UnlearningConfig
from fluoroscope.studies.unlearning.selection import latent_table
from fluoroscope.studies.unlearning.sets import ForgetSets, Passage, Side, chance
from fluoroscope.studies.unlearning.statistics import LatentCounts, measure
from fluoroscope.studies.unlearning.steps.stored import (
    load_saes_by_point,
    load_sets,
    reading_cost,
)

STATISTICS = "statistics"
LATENTS, SETS = "latents.parquet", "sets.json"
_COUNTS = "counts.safetensors"
_SIDES: tuple[Side, ...] = ("forget", "retain")


class StatisticsStep(MapStep):
    name = STATISTICS

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config
        self.inputs = sae_inputs(config)

    def cost(self) -> Cost:
        return reading_cost(self.config, 1, 2)

    def shards(self, run: Run) -> Sequence[Shard]:
        sets, size = load_sets(run, self.config), self.config.evaluate.texts_per_shard
        return [
            Shard(f"{side}-{start:06d}", {"side": side, "from": start, "to": start + size})
            for side in _SIDES
            for start in range(0, len(texts_of(sets, side)), size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.config.model, context.device)
        saes = load_saes_by_point(run, self.config, context.device)
        texts = texts_of(load_sets(run, self.config, context.device), shard.params["side"])
        found = measure(model, saes, texts[shard.params["from"] : shard.params["to"]])
        tensors = {
            f"{point}/{name}": torch.from_numpy(np.ascontiguousarray(array))
            for point, counts in found.items()
            for name, array in counts.state().items()
        }
        write_tensors(context.folder / _COUNTS, tensors)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        totals: dict[str, dict[HookPoint, LatentCounts]] = {side: {} for side in _SIDES}
        for shard in self.shards(run):
            mine = totals[shard.params["side"]]
            for point, counts in _load(folder / "shards" / shard.key / _COUNTS).items():
                if point in mine:
                    mine[point].merge(counts)
                else:
                    mine[point] = counts
        table = latent_table(totals["forget"], totals["retain"])
        write_parquet(folder / LATENTS, table)
        sets = load_sets(run, self.config)
        write_json(folder / SETS, _described(sets))
        sink.message(f"{len(sets.forget)} texts to forget, {len(sets.retain)} to keep.")


def texts_of(sets: ForgetSets, side: Side) -> list[str]:
    """A text once, in the order of the passages."""
    passages = sets.forget if side == "forget" else sets.retain
    return list(dict.fromkeys(one.text for one in passages))


def _load(path: Path) -> dict[HookPoint, LatentCounts]:
    states: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in read_tensors(path).items():
        point, _, name = key.rpartition("/")
        states.setdefault(point, {})[name] = tensor.numpy()
    return {HookPoint(point): LatentCounts.from_state(state) for point, state in states.items()}


def _described(sets: ForgetSets) -> dict[str, object]:
    def counts(passages: Sequence[Passage]) -> dict[str, int]:
        return {"texts": len(passages), "groups": len({one.group for one in passages})}

    samples = {
        "forget": sets.forget_samples,
        "retain": sets.retain_samples,
        "forget_validation": sets.forget_validation,
        "retain_validation": sets.retain_validation,
    }
    return {
        "forgotten": list(sets.forgotten),
        "note": sets.note,
        "texts": {
            "forget": counts(sets.forget),
            "retain": counts(sets.retain),
            "forget_held_out": counts(sets.forget_held_out),
            "retain_held_out": counts(sets.retain_held_out),
        },
        "samples": {
            name: {
                "n": len(several),
                "groups": len({one.group_id for one in several}),
                "chance": chance(several) if several else None,
            }
            for name, several in samples.items()
        },
    }
