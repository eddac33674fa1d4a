"""Decoder directions of all layers on one plane (`map/`).

map/shards/all/map.safetensors   <hook point>/latents and /places; of PCA `explained`
map/shards/all/map.json          how far the map is to be trusted
    and, where there are several layers, paths/places [layers, rows, 2] of rows that are followed
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.features.decoder_map import DecoderMap, decoder_map
from fluoroscope.features.decoder_paths import decoder_paths
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.anatomy.plans import AnatomyConfig
from fluoroscope.studies.anatomy.sae_sets import load_set
from fluoroscope.studies.anatomy.steps.statistics import (
    STATISTICS,
    load_statistics,
    text_moments,
)

MAP = "map"
_JSON, _DOTS = "map.json", "map.safetensors"

_FOLLOWED = 1000
"""Rows that move from layer to layer in the animation."""


class DecoderMapStep(MapStep):
    name = MAP

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config
        self.inputs = (STATISTICS, *sae_inputs(config))

    def cost(self) -> Cost:
        config = self.config
        weights = 4.0 * sum(config.widths) * config.model.d_model
        dots = len(config.points) * config.map.latents_per_layer
        return Cost(
            flops=2.0 * sum(config.widths) * config.model.d_model**2,
            overhead_s=10.0 if config.map.method == "pca" else 30.0 + 5e-3 * dots,
            memory_bytes=2 * weights + 0.5e9,
            disk_bytes=24.0 * dots,
            note=config.map.method,
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        saes = load_set(run, config, config.set_names[0], context.device)
        live = {
            str(point): text_moments(load_statistics(run, config.readings[0], point)[0]).count > 0
            for point in saes
        }
        decoders = {str(point): sae.W_dec.float().cpu().numpy() for point, sae in saes.items()}
        # What is never active has a direction that nothing was learned of.
        found = decoder_map(
            decoders, config.map.method, config.seed, live, config.map.latents_per_layer
        )
        tensors = {}
        for name, dots in found.layers.items():
            tensors[f"{name}/latents"] = torch.from_numpy(dots.latents)
            tensors[f"{name}/places"] = torch.from_numpy(dots.places)
        trust = _trust(found)
        if len(decoders) > 1:
            paths = decoder_paths(decoders, found, _FOLLOWED, config.seed)
            tensors["paths/places"] = torch.from_numpy(paths.places)
            trust["followed"] = {
                "n": paths.latents.shape[1],
                "cosine": float(np.median(paths.cosines)),
                "cosine_by_chance": float(np.median(paths.cosines_by_chance)),
            }
        write_tensors(context.folder / _DOTS, tensors)
        write_json(context.folder / _JSON, trust)


def _trust(found: DecoderMap) -> dict[str, Any]:  # Any: JSON values.
    return {
        "method": found.method,
        "explained": None if found.explained is None else list(found.explained),
        "neighbours_kept": found.neighbours_kept,
        "neighbours_kept_by_chance": found.neighbours_kept_by_chance,
        "n_judged": found.n_judged,
        "n_neighbours": found.n_neighbours,
        "left_out": {
            name: {"dead": dots.n_dead, "zero": dots.n_zero, "not_drawn": dots.n_not_drawn}
            for name, dots in found.layers.items()
        },
    }


def load_map(
    run: Run, points: Sequence[HookPoint]
) -> tuple[dict[HookPoint, np.ndarray], np.ndarray | None, Mapping[str, Any]]:  # Any: JSON values.
    """Places [n, 2] of each hook point's dots, of what is followed, and what is known of them."""
    folder = run.shard_folder(MAP, "all")
    tensors = read_tensors(folder / _DOTS)
    places = {point: tensors[f"{point}/places"].numpy() for point in points}
    followed = tensors.get("paths/places")
    return places, None if followed is None else followed.numpy(), read_json(folder / _JSON)
