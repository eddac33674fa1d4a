"""SAEs of every set on text of every corpus -> how well they do (`cross/`).

cross/shards/<corpus>-<set>/quality.json   of each hook point, with intervals over sequences
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.data.token_store import WindowRange
from fluoroscope.features.statistics import TEXT
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import forward_cost, load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.anatomy.by_position import predicted
from fluoroscope.studies.anatomy.explained import explained
from fluoroscope.studies.anatomy.loss_table import loss_row
from fluoroscope.studies.anatomy.plans import AnatomyConfig
from fluoroscope.studies.anatomy.reading import SequenceReader
from fluoroscope.studies.anatomy.sae_sets import load_set
from fluoroscope.studies.anatomy.slices import layout_of
from fluoroscope.studies.anatomy.splicing import CLEAN, RECONSTRUCTED, Splicer
from fluoroscope.studies.anatomy.steps.read import sequence
from fluoroscope.studies.anatomy.steps.texts import open_texts, texts_step_name

CROSS = "cross"
MAIN = "corpus"
"""The name of the main corpus beside others."""

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
        weights = sum(2.0 * width * config.model.d_model for width in config.widths)
        return replace(
            forward,
            flops=forward.flops + 2 * weights * tokens,
            memory_bytes=forward.memory_bytes + 4.0 * weights,
            disk_bytes=2e3 * pairs * len(config.points),
            parallel=pairs,
            note=f"sets of SAEs: {len(config.set_names)}, texts: {len(config.corpora())}",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(f"{corpus or MAIN}-{name}", {"corpus": corpus, "set": name})
            for corpus in self.config.corpora()
            for name in self.config.set_names
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        model = load_model(run, config.model, context.device)
        saes = load_set(run, config, shard.params["set"], context.device)
        store = open_texts(run, shard.params["corpus"])
        split = "train" if shard.params["corpus"] else config.split
        n = min(config.cross.n_sequences, store.n_windows(split))
        windows = WindowRange(split, 0, n)
        layout = layout_of(store, windows)
        reader, splicer = SequenceReader(model, saes), Splicer(model, saes)
        sums: dict[str, list[np.ndarray]] = {}
        losses: dict[str, np.ndarray] = {}
        for q in range(n):
            tokens, is_text = sequence(store, windows, layout, q)
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


def load_cross(
    run: Run, config: AnatomyConfig
) -> dict[tuple[str, str], dict[str, Any]]:  # Any: JSON values.
    """(set, corpus) -> hook point -> numbers with intervals."""
    return {
        (name, corpus or MAIN): read_json(
            run.shard_folder(CROSS, f"{corpus or MAIN}-{name}") / _QUALITY
        )
        for corpus in config.corpora()
        for name in config.set_names
    }


def mean_of(values: Sequence[float | None]) -> float:
    """Of what could be measured; NaN where nothing could."""
    told = [value for value in values if value is not None]
    return sum(told) / len(told) if told else math.nan
