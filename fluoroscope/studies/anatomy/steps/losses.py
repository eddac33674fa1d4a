"""Reconstructions spliced in, one hook point at a time -> what the model loses (`losses/`).

losses/shards/<start>/losses.safetensors   of each token: clean, and with each way at each point
losses/positions.safetensors               means by position
losses/losses.json                         differences and recovered shares, with intervals
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import forward_cost, load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.anatomy.by_position import by_position, predicted
from fluoroscope.studies.anatomy.loss_table import loss_row
from fluoroscope.studies.anatomy.plans import AnatomyConfig
from fluoroscope.studies.anatomy.sae_sets import load_set
from fluoroscope.studies.anatomy.splicing import CLEAN, MEAN, RECONSTRUCTED, ZERO, Splicer
from fluoroscope.studies.anatomy.steps.read import reading_text
from fluoroscope.studies.anatomy.steps.statistics import STATISTICS, load_statistics
from fluoroscope.studies.anatomy.steps.texts import TEXTS

LOSSES_STEP = "losses"
POSITIONS, TABLE = "positions.safetensors", "losses.json"
_TOKENS = "losses.safetensors"


class LossesStep(MapStep):
    name = LOSSES_STEP

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config
        self.inputs = (TEXTS, STATISTICS, *sae_inputs(config))

    @property
    def n_sequences(self) -> int:
        asked = self.config.losses.n_sequences
        return self.config.n_sequences if asked is None else min(asked, self.config.n_sequences)

    def cost(self) -> Cost:
        config = self.config
        n_layers = config.model.n_layers
        behind = sum(n_layers - point.layer for point in config.points) / n_layers
        tokens = float(self.n_sequences * config.corpus.context)
        forward = forward_cost(
            config.model, config.shape, config.corpus.context, 1, tokens * (1 + 3 * behind)
        )
        weights = sum(2.0 * width * config.model.d_model for width in config.widths)
        return replace(
            forward,
            flops=forward.flops + weights * tokens,
            memory_bytes=3 * forward.memory_bytes + 4.0 * weights,
            disk_bytes=8.0 * tokens * (1 + 3 * len(config.points)),
            parallel=max(1, self.n_sequences // config.read.sequences_per_shard),
            note="three spliced passes for each layer, from that layer on",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        text = reading_text(run, self.config, self.config.readings[0])
        n, size = min(self.n_sequences, len(text)), self.config.read.sequences_per_shard
        return [
            Shard(f"{start:06d}", {"start": start, "stop": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        model = load_model(run, config.model, context.device)
        saes = load_set(run, config, config.set_names[0], context.device)
        splicer = Splicer(model, saes, self._means(run))
        text = reading_text(run, config, config.readings[0])
        start, stop = shard.params["start"], shard.params["stop"]
        kept: dict[str, np.ndarray] = {}

        def keep(key: str, q: int, losses: torch.Tensor) -> None:
            shape = (stop - start, text.layout.context)
            kept.setdefault(key, np.zeros(shape))[q, : len(losses)] = losses.numpy()

        for q in range(start, stop):
            tokens, is_text = text.sequence(q)
            if len(tokens) > 1:
                clean, spliced = splicer.losses(tokens, is_text)
                keep(CLEAN, q - start, clean)
                for point, ways in spliced.items():
                    for way, losses in ways.items():
                        keep(f"{point}/{way}", q - start, losses)
            context.sink.progress(q + 1 - start, stop - start, "sequences")
        tensors = {key: torch.from_numpy(rows) for key, rows in kept.items()}
        write_tensors(context.folder / _TOKENS, tensors)

    def _means(self, run: Run) -> dict[HookPoint, torch.Tensor]:
        reading = self.config.readings[0]
        return {
            point: torch.tensor(load_statistics(run, reading, point)[2]["mean"])
            for point in self.config.points
        }

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        parts = [
            read_tensors(folder / "shards" / shard.key / _TOKENS) for shard in self.shards(run)
        ]
        losses = {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}
        layout = reading_text(run, self.config, self.config.readings[0]).layout
        n = len(losses[CLEAN])
        counted = predicted(layout.exists[:n], layout.is_text[:n])
        means = {key: by_position(values, counted) for key, values in losses.items()}
        named = {f"{k}/{n}": v for k, found in means.items() for n, v in found._asdict().items()}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in named.items()}
        write_tensors(folder / POSITIONS, tensors)
        table = {}
        for point in self.config.points:
            ways = {way: losses[f"{point}/{way}"] for way in (RECONSTRUCTED, MEAN, ZERO)}
            row = loss_row({CLEAN: losses[CLEAN], **ways}, counted, self.config.seed)
            table[str(point)] = {"n_sequences": n, "n_tokens": int(counted.sum()), **row}
        write_json(folder / TABLE, without_nan(table))
