"""A few latents of each layer one by one (`portraits/`).

portraits/shards/<hook point>/portraits.json   why each was chosen, and its numbers
portraits/shards/<hook point>/arrays.safetensors
    <reading>/mean, error [latents, positions]   activation by position, over text tokens
    <slice>/values/<row>                         every activation over text tokens
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.features.examples import prominent_latents
from fluoroscope.features.statistics import TEXT, LatentMoments, position_coefficients
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.anatomy.plans import AnatomyConfig
from fluoroscope.studies.anatomy.steps.read import READ, read_columns, reading_text
from fluoroscope.studies.anatomy.steps.statistics import (
    STATISTICS,
    load_statistics,
    text_moments,
)

PORTRAITS = "portraits"
_JSON, _ARRAYS = "portraits.json", "arrays.safetensors"

_OFTEN = 1e-3
"""Density from which on a latent is seen often enough to ask what its position tells."""


class PortraitsStep(MapStep):
    name = PORTRAITS
    inputs = (READ, STATISTICS)

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        n = len(self.config.points) * len(self.config.readings)
        return Cost(overhead_s=0.1 * n, memory_bytes=0.3e9, disk_bytes=1e5 * n)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(str(point)) for point in self.config.points]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, point = self.config, HookPoint(shard.key)
        first = config.readings[0]
        latents, _, _ = load_statistics(run, first, point)
        moments, share = text_moments(latents), latents["position_share"]
        named = config.shown.latents.get(shard.key, ())
        energy = _energy(run, config, point)
        chosen = _chosen(moments, share, energy, config.shown.n_latents, named)
        numbers = [
            {
                "latent": latent,
                "chosen_by": why,
                "density": float(moments.density[latent]),
                "mean": float(moments.mean[latent]),
                "position_share": float(share[latent]),
            }
            for latent, why in chosen.items()
        ]
        write_json(context.folder / _JSON, without_nan(numbers))
        arrays: dict[str, np.ndarray] = {}
        for i, reading in enumerate(config.readings):
            columns = read_columns(run, config, reading, point)
            layout = reading_text(run, config, reading).layout
            found = position_coefficients(columns, layout, list(chosen))
            arrays |= {f"{reading.key}/mean": found.mean, f"{reading.key}/error": found.error}
            arrays[f"{reading.key}/n"] = found.n_tokens
            if reading.ablation is None:
                text = layout.counted(TEXT).ravel()
                for row, latent in enumerate(chosen):
                    tokens, values = columns.latent(latent)
                    arrays[f"{reading.key}/values/{row}"] = values[text[tokens]]
            context.sink.progress(i + 1, len(config.readings), "readings")
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
        write_tensors(context.folder / _ARRAYS, tensors)


def _energy(run: Run, config: AnatomyConfig, point: HookPoint) -> torch.Tensor:
    """Mean square activation of each latent over all slices: chosen on one of them, latents would
    look weaker on the others for that alone.
    """
    clean = [reading for reading in config.readings if reading.ablation is None]
    moments = [text_moments(load_statistics(run, one, point)[0]) for one in clean]
    squares = [one.density * (one.mean**2 + one.std**2) for one in moments]
    return torch.from_numpy(np.mean(squares, axis=0))


def _chosen(
    moments: LatentMoments,
    share: np.ndarray,
    energy: torch.Tensor,
    n: int,
    named: Sequence[int],
) -> dict[int, str]:
    """Latent -> why it is shown; each once."""
    found = dict.fromkeys(named, "named")
    for latent in prominent_latents(energy, torch.from_numpy(moments.density), n):
        if sum(why == "energy" for why in found.values()) < (n + 1) // 2:
            found.setdefault(latent, "energy")
    # Latents that are nearly never on can follow a position by chance.
    often = (moments.density >= _OFTEN) & np.isfinite(share)
    order = np.argsort(-np.where(often, share, -np.inf), kind="stable")
    for latent in order.tolist():
        if len(found) >= n + len(named) or not often[latent]:
            break
        found.setdefault(latent, "position")
    return found


def load_portraits(
    run: Run, point: HookPoint
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:  # Any: JSON values.
    """What is known of each chosen latent, and the arrays, rows in the same order."""
    folder = run.shard_folder(PORTRAITS, str(point))
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(folder / _ARRAYS).items()}
    return read_json(folder / _JSON), arrays
