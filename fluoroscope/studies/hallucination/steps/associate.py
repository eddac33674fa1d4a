"""What was read of the answers -> how likely latents of two layers are one feature (`associate/`).

associate/association.safetensors, association.json   the likelihood model: `tracking/association`
associate/scales.safetensors                          [layers, d_sae]: what is high for a latent

Both are estimated from tokens of all answers without their labels; nothing here knows which
answers are made up.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.sparse_kernels import SparseLatents
from fluoroscope.steps.subject import load_layers, sae_choices, sae_inputs
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.signals.reading import Readings
from fluoroscope.studies.hallucination.steps.read import READ, read_shards
from fluoroscope.studies.hallucination.tracking.association import (
    AssociationModel,
    load_association,
    save_association,
)
from fluoroscope.studies.hallucination.tracking.association_fit import fit_association
from fluoroscope.studies.hallucination.tracking.detections import (
    Active,
    Detections,
    detect,
    scale_of_latents,
)
from fluoroscope.studies.hallucination.tracking.seed_cost import SeedCosts
from fluoroscope.studies.hallucination.tracking.trackers import SEED_COST, LinkModel
from fluoroscope.studies.hallucination.tracking.transport import neighbour_graph, transport

ASSOCIATE = "associate"
SCALES = "scales.safetensors"


class AssociateStep(MapStep):
    """One shard: a sample of tokens is read, and the graph of decoders is computed once."""

    name = ASSOCIATE

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), READ)

    def cost(self) -> Cost:
        widths, d = self.config.widths, self.config.shape.d_model
        gaps = self.config.tracking.max_gap
        pairs = sum(float(a) * b for a, b in pairwise(widths)) * gaps
        kept = len(widths) * max(widths) * self.config.tracking.neighbours * gaps * 8.0
        return Cost(
            flops=2.0 * d * pairs,
            overhead_s=2e-3 * self.config.tracking.sample + 5.0,
            memory_bytes=4.0 * 2048 * max(widths) + 4 * kept + 4.0 * d * sum(widths) + 0.5e9,
            disk_bytes=kept,
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        tracking = self.config.tracking
        points = self.config.points
        scales = self._scales(run, points)
        sample = self._sample(run, points, scales)
        saes = load_layers(run, self.config, context.device)
        width = max(self.config.widths)
        decoders = [_padded(saes[str(point)].W_dec.detach().float(), width) for point in points]
        states = [_states(run, point) for point in points]
        maps = [transport(tracking.transport, here, there) for here, there in pairwise(states)]
        gap = min(tracking.max_gap, len(points) - 1)
        graph = neighbour_graph(
            decoders, [one.to(context.device) for one in maps], gap, tracking.neighbours
        )
        model = fit_association(sample, graph, self.config.seed, tracking.gate)
        save_association(model, context.folder)
        write_tensors(context.folder / SCALES, {"scales": torch.from_numpy(scales)})
        rates = model.rates
        context.sink.message(
            f"Detection {rates.detection:.2f}, survival {rates.survival:.2f}, "
            f"from {len(sample)} tokens."
        )

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        write_json(
            folder / "about.json",
            {"saes": [sae.provenance() for sae in sae_choices(run, self.config)]},
        )

    def _scales(self, run: Run, points: Sequence[HookPoint]) -> Float[np.ndarray, "l d_sae"]:
        width = max(self.config.widths)
        found = np.ones((len(points), width))
        for layer, point in enumerate(points):
            parts = [readings.latents[point] for _, readings in read_shards(run)]
            indices = np.concatenate([part.indices.numpy() for part in parts])
            values = np.concatenate([part.values.numpy() for part in parts])
            found[layer] = scale_of_latents(indices, values.astype(np.float64), width)
        return found

    def _sample(
        self, run: Run, points: Sequence[HookPoint], scales: Float[np.ndarray, "l d_sae"]
    ) -> list[Detections]:
        counts = [readings.latents[points[0]].n_rows for _, readings in read_shards(run)]
        n, wanted = sum(counts), self.config.tracking.sample
        if n < 2:
            raise ConfigError("There are fewer than two tokens to learn how features go on from.")
        chosen = np.sort(stream(self.config.seed, "tokens").permutation(n)[:wanted])
        found: list[Detections] = []
        start = 0
        for count, (_, readings) in zip(counts, read_shards(run), strict=True):
            mine = chosen[(chosen >= start) & (chosen < start + count)] - start
            found += [
                detections_at(readings, points, int(row), scales, self.config.tracking.top)
                for row in mine
            ]
            start += count
        return found


def detections_at(
    readings: Readings,
    points: Sequence[HookPoint],
    row: int,
    scales: Float[np.ndarray, "l d_sae"],
    top: int,
) -> Detections:
    """The latents that are active at one position, layer by layer."""
    return detect([_active(readings.latents[point], row) for point in points], scales, top)


def read_association(run: Run) -> tuple[AssociationModel, Float[np.ndarray, "l d_sae"]]:
    """The likelihood model and the scales of latents."""

    def load() -> tuple[AssociationModel, Float[np.ndarray, "l d_sae"]]:
        folder = run.shard_folder(ASSOCIATE, "all")
        return load_association(folder), read_tensors(folder / SCALES)["scales"].numpy()

    return run.cached((ASSOCIATE, "model"), load)


def read_link_model(run: Run) -> tuple[LinkModel, Float[np.ndarray, "l d_sae"]]:
    """What says how likely detections are one feature, for the run's tracker; and the scales."""
    model, scales = read_association(run)
    config: HallucinationConfig = run.config
    if config.tracking.tracker != SEED_COST:
        return model, scales

    def load() -> SeedCosts:
        saes = load_layers(run, config, "cpu")
        decoders = [saes[str(point)].W_dec.numpy() for point in config.points]
        return SeedCosts(decoders, config.tracking.seed_cost)

    return run.cached((ASSOCIATE, SEED_COST), load), scales


def _active(latents: SparseLatents, row: int) -> Active:
    mine = slice(int(latents.offsets[row]), int(latents.offsets[row + 1]))
    return latents.indices[mine].numpy(), latents.values[mine].numpy()


def _padded(rows: Float[Tensor, "s d"], n: int) -> Float[Tensor, "n d"]:
    # Directions of length 0 have no neighbours and are none.
    return torch.cat([rows, rows.new_zeros(n - len(rows), rows.shape[1])])


def _states(run: Run, point: HookPoint) -> Float[Tensor, "n d"]:
    """Of the last token and of the answer's own, which is often the same."""
    return torch.cat(
        [readings.states[point][:, :2].flatten(0, 1) for _, readings in read_shards(run)]
    )
