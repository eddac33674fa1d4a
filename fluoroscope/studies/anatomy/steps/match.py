"""Which latents the sets of SAEs share (`match/`).

match/shards/pair-<set>-<hook point>/row.json, cosines.safetensors   the set that is looked at
    and another one, at one hook point: ratios with their nulls, and what they are ratios of
match/shards/layers-<set>-<set>/layers.safetensors                   every layer with every other
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluoroscope.core.intervals import share_interval
from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.features.matching_nulls import expected_maximum
from fluoroscope.features.matching_ratios import layer_ratios, matching_row
from fluoroscope.features.sae_matching import MatchingConfig, SAEMatching, match_saes
from fluoroscope.features.top_matches import Directions
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.anatomy.plans import AnatomyConfig
from fluoroscope.studies.anatomy.sae_sets import load_sae, sae_sets
from fluoroscope.studies.anatomy.steps.statistics import (
    STATISTICS,
    load_statistics,
    text_moments,
)

MATCH = "match"
WAYS = ("decoder_a_to_b", "decoder_b_to_a", "encoder_a_to_b", "encoder_b_to_a")
_ROW, _COSINES, _LAYERS = "row.json", "cosines.safetensors", "layers.safetensors"


class MatchStep(MapStep):
    name = MATCH

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config
        self.inputs = (STATISTICS, *sae_inputs(config))

    def cost(self) -> Cost:
        config = self.config
        n_sets, d_model = len(config.set_names), config.model.d_model
        widest = max(width for widths in config.set_widths.values() for width in widths)
        product = 2.0 * widest**2 * d_model
        n_pairs = (n_sets - 1) * len(config.points)
        n_matrices = (2 * n_sets - 1) * len(config.points) ** 2 if config.match.every_layer else 0
        exact = widest if widest <= MatchingConfig().exact_up_to else 0
        return Cost(
            # Decoder and encoder, each with the other side, with itself, and with the nulls.
            flops=product * (n_pairs * (4 + 2 * config.match.draws) + n_matrices),
            overhead_s=n_pairs * (2.0 + 1e-10 * exact**3),
            # Two SAEs and their directions; of matrices the directions of two sets.
            memory_bytes=40.0 * widest * d_model
            + 8.0 * len(config.points) * widest * d_model * config.match.every_layer
            + 16.0 * exact**2
            + 0.5e9,
            disk_bytes=100.0 * widest * n_pairs,
            parallel=max(1, n_pairs + (2 * n_sets - 1)),
            note=f"{n_sets} sets" if n_sets > 1 else "layers with each other",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        first, *others = self.config.set_names
        pairs = [
            Shard(_pair_key(self.config, other, point), {"other": other, "point": str(point)})
            for other in others
            for point in shared_points(run, self.config, other)
        ]
        if not self.config.match.every_layer:
            return pairs
        matrices = [(one, one) for one in (first, *others)] + [(first, other) for other in others]
        return pairs + [
            Shard(_layers_key(self.config, one, other), {"one": one, "other": other})
            for one, other in matrices
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        if "point" in shard.params:
            self._match_pair(run, shard, context)
        else:
            self._match_layers(run, shard, context)

    def _match_pair(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, point = self.config, HookPoint(shard.params["point"])
        # Two SAEs at a time: sets of a large model would not fit beside each other.
        one = load_sae(run, config, config.set_names[0], point)
        other = load_sae(run, config, shard.params["other"], point)
        settings = MatchingConfig(
            k=config.match.nearest,
            threshold=config.match.threshold,
            null_draws=config.match.draws,
            seed=config.seed,
        )
        found = match_saes(one, other, settings)
        latents, _, _ = load_statistics(run, config.readings[0], point)
        is_active = text_moments(latents).count > 0
        row = {**matching_row(found), **_of_active(found, is_active)}
        write_json(context.folder / _ROW, without_nan(row))
        write_tensors(context.folder / _COSINES, _cosines(found))

    def _match_layers(self, run: Run, shard: Shard, context: ShardContext) -> None:
        names = [shard.params[side] for side in ("one", "other")]
        sides = [self._directions(run, name) for name in dict.fromkeys(names)]
        found = layer_ratios(sides[0], sides[-1], self.config.match.threshold)
        tensors = {
            "a_to_b": found.a_to_b,
            "b_to_a": found.b_to_a,
            "same_index": found.same_index,
        }
        tensors["chance"] = np.array([found.chance])
        named = {name: torch.from_numpy(values) for name, values in tensors.items()}
        write_tensors(context.folder / _LAYERS, named)

    def _directions(self, run: Run, name: str) -> list[Directions]:
        points = sae_sets(run, self.config)[name]
        return [Directions.of(load_sae(run, self.config, name, point).W_dec) for point in points]


def _pair_key(config: AnatomyConfig, other: str, point: HookPoint) -> str:
    # By their numbers: names may hold whatever would part two of them.
    return f"pair-{config.set_names.index(other)}-{point}"


def _layers_key(config: AnatomyConfig, one: str, other: str) -> str:
    return f"layers-{config.set_names.index(one)}-{config.set_names.index(other)}"


def shared_points(run: Run, config: AnatomyConfig, other: str) -> list[HookPoint]:
    """Hook points at which both the set that is looked at and the other have an SAE."""
    there = sae_sets(run, config)[other]
    return [point for point in config.points if point in there]


def _of_active(found: SAEMatching, is_active: Bool[np.ndarray, " s"]) -> dict[str, float]:
    """The shared ratio among latents that were active on the text of this run."""
    kept = is_active & found.live_a
    if not kept.any():
        return {}
    near = found.decoder.of_a.cosines[kept, 0] > found.config.threshold
    value, low, high = share_interval(near)
    name = "decoder_shared_active_a_to_b"
    return {name: value, f"{name}_low": low, f"{name}_high": high, "active_a": int(kept.sum())}


def _cosines(found: SAEMatching) -> dict[str, Tensor]:
    """Of each way the highest cosines and what chance gives, and those of the assignments."""
    kept: dict[str, np.ndarray] = {}
    for name, kind in (("decoder", found.decoder), ("encoder", found.encoder)):
        kept[f"{name}_a_to_b"] = kind.of_a.cosines
        kept[f"{name}_b_to_a"] = kind.of_b.cosines
        kept[f"{name}_one_to_one"] = kind.one_to_one.cosines
        kept[f"{name}_own"] = kind.own_a
    kept["random_a_to_b"], kept["random_b_to_a"] = found.random.of_a, found.random.of_b
    kept["expected_a_to_b"] = _expected(found.live_b, found.d_model)
    kept["expected_b_to_a"] = _expected(found.live_a, found.d_model)
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in kept.items()}


def _expected(live: Bool[np.ndarray, " s"], d_model: int) -> Float[np.ndarray, " 1"]:
    return np.array([expected_maximum(int(live.sum()), d_model)])


def load_pair(
    run: Run, config: AnatomyConfig, other: str, point: HookPoint
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # Any: JSON values.
    """The row of numbers of a pair, and its cosines."""
    folder = run.shard_folder(MATCH, _pair_key(config, other, point))
    tensors = read_tensors(folder / _COSINES)
    return read_json(folder / _ROW), {name: value.numpy() for name, value in tensors.items()}


def load_layers(run: Run, config: AnatomyConfig, one: str, other: str) -> dict[str, np.ndarray]:
    """`a_to_b` and `b_to_a` [layers of one, layers of the other], and `chance`."""
    folder = run.shard_folder(MATCH, _layers_key(config, one, other))
    return {name: value.numpy() for name, value in read_tensors(folder / _LAYERS).items()}
