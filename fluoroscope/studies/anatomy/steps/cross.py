"""SAEs of every set on text of every corpus -> how well they do (`cross/`).

cross/shards/text<number>-set<number>/quality.json   of each hook point, with intervals
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.features.statistics import TEXT
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import forward_cost, load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.anatomy.by_position import predicted
from fluoroscope.studies.anatomy.explained import explained
from fluoroscope.studies.anatomy.loss_table import loss_row
from fluoroscope.studies.anatomy.plans import MAIN_TEXT, AnatomyConfig
from fluoroscope.studies.anatomy.reading import SequenceReader
from fluoroscope.studies.anatomy.sae_sets import load_set
from fluoroscope.studies.anatomy.slices import text_slices
from fluoroscope.studies.anatomy.splicing import CLEAN, RECONSTRUCTED, Splicer
from fluoroscope.studies.anatomy.steps.texts import open_texts, texts_step_name

CROSS = "cross"
_QUALITY = "quality.json"


class CrossStep(MapStep):
    name = CROSS

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config
        self.inputs = (*map(texts_step_name, config.corpora()), *sae_inputs(config))

    def cost(self) -> Cost:
        config = self.config
        pairs = len(config.corpora()) * len(config.set_names)
        tokens = float(pairs * config.cross.n_sequences * config.corpus.context)
        passes = 2 + len(config.points)
        forward = forward_cost(
            config.model, config.shape, config.corpus.context, 1, passes * tokens
        )
        sets = config.set_widths.values()
        weights = max(sum(2.0 * width * config.model.d_model for width in one) for one in sets)
        return replace(
            forward,
            flops=forward.flops + 2 * weights * tokens,
            # The set that is looked at stays in a process; another comes beside it.
            memory_bytes=forward.memory_bytes + 8.0 * weights,
            disk_bytes=2e3 * pairs * len(config.points),
            parallel=pairs,
            note=f"sets of SAEs: {len(config.set_names)}, texts: {len(config.corpora())}",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(_key(self.config, corpus, name), {"corpus": corpus, "set": name})
            for corpus in self.config.corpora()
            for name in self.config.set_names
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        model = load_model(run, config.model, context.device)
        saes = load_set(run, config, shard.params["set"], context.device)
        store = open_texts(run, shard.params["corpus"])
        split = config.split_of(shard.params["corpus"])
        text = text_slices(store, split, config.cross.n_sequences, ["first"])["first"]
        n, layout = len(text), text.layout
        reader, splicer = SequenceReader(model, saes), Splicer(model, saes)
        sums: dict[str, list[np.ndarray]] = {}
        losses: dict[str, np.ndarray] = {}
        for q in range(n):
            tokens, is_text = text.sequence(q)
            for point, layer in reader.read(tokens, is_text).layers.items():
                for name, value in layer.sums.items():
                    sums.setdefault(f"{point}/{name}", []).append(value.numpy())
            if model.predicts_next_tokens and len(tokens) > 1:
                _keep(losses, q, (n, layout.context), splicer.losses(tokens, is_text))
            context.sink.progress(q + 1, n, "sequences")
        counted = predicted(layout.exists, layout.is_text)
        found: dict[str, Any] = {}
        for point in map(str, saes):
            own = {
                k.removeprefix(f"{point}/"): np.stack(v)
                for k, v in sums.items()
                if k.startswith(f"{point}/")
            }
            found[point] = _row(own, config.seed)
            if losses:
                ways = {CLEAN: losses[CLEAN], RECONSTRUCTED: losses[f"{point}/{RECONSTRUCTED}"]}
                found[point] |= loss_row(ways, counted, config.seed)
            found[point]["n_text_tokens"] = int(layout.counted(TEXT).sum())
            found[point]["n_sequences"] = n
        write_json(context.folder / _QUALITY, without_nan(found))


def _row(sums: dict[str, np.ndarray], seed: int) -> dict[str, Any]:  # Any: JSON values.
    found = explained(sums, seed)
    return {
        "explained_variance": list(found.explained_variance),
        "mean_square_error": list(found.mean_square_error),
    }


def _keep(kept: dict[str, np.ndarray], q: int, shape: tuple[int, int], found: tuple) -> None:
    clean, spliced = found
    named: dict[str, torch.Tensor] = {CLEAN: clean}
    named |= {f"{point}/{way}": one for point, ways in spliced.items() for way, one in ways.items()}
    for key, values in named.items():
        kept.setdefault(key, np.zeros(shape))[q, : len(values)] = values.numpy()


def _key(config: AnatomyConfig, corpus: str, name: str) -> str:
    # By their numbers: names may hold whatever would part two of them.
    return f"text{list(config.corpora()).index(corpus)}-set{config.set_names.index(name)}"


def load_cross(
    run: Run, config: AnatomyConfig
) -> dict[tuple[str, str], dict[str, Any]]:  # Any: JSON values.
    """(set, corpus) -> hook point -> numbers with intervals."""
    return {
        (name, corpus or MAIN_TEXT): read_json(
            run.shard_folder(CROSS, _key(config, corpus, name)) / _QUALITY
        )
        for corpus in config.corpora()
        for name in config.set_names
    }


def mean_of(values: Sequence[float | None]) -> float:
    """Of what could be measured; NaN where nothing could."""
    told = [value for value in values if value is not None]
    return sum(told) / len(told) if told else math.nan
