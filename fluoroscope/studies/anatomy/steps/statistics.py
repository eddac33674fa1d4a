"""Active latents -> statistics of each latent and position (`statistics/`).

statistics/shards/<reading>-<hook point>/latents.safetensors     of each latent
statistics/shards/<reading>-<hook point>/positions.safetensors   of each position
statistics/shards/<reading>-<hook point>/summary.json            of the SAE, with intervals
statistics/readings.safetensors                                  the model's own losses
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fluoroscope.core.intervals import ratio_interval
from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.seeding import stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.features.activation_columns import LatentColumns
from fluoroscope.features.statistics import (
    TEXT,
    LatentMoments,
    LatentStatistics,
    Layout,
    TokenMoments,
    latent_statistics,
    position_statistics,
)
from fluoroscope.features.unit_rates import unit_rates
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.anatomy.by_position import by_position, predicted
from fluoroscope.studies.anatomy.explained import explained
from fluoroscope.studies.anatomy.plans import AnatomyConfig, Reading, layer_names
from fluoroscope.studies.anatomy.slices import TextSlice
from fluoroscope.studies.anatomy.steps.read import (
    GUESSED_L0,
    LOSSES,
    READ,
    SEQUENCES_FILE,
    TOKENS_FILE,
    read_columns,
    read_notes,
    reading_text,
)

STATISTICS = "statistics"
LATENTS, POSITIONS, SUMMARY = "latents.safetensors", "positions.safetensors", "summary.json"
READINGS = "readings.safetensors"
ALL = "all"
"""The rates of all blocks of a slice; those of halves are named by `half_name`."""

N_HALVINGS = 5
"""How often a slice is dealt at random into two halves, which can differ by chance alone."""


class StatisticsStep(MapStep):
    name = STATISTICS
    inputs = (READ,)

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        config = self.config
        tokens = float(config.n_sequences * config.corpus.context)
        entries = tokens * max(min(GUESSED_L0, width) for width in config.widths)
        n_shards = len(config.readings) * len(config.points)
        return Cost(
            bytes_moved=40.0 * entries * n_shards,
            overhead_s=2e-7 * entries * n_shards + 0.2 * n_shards,
            memory_bytes=0.4e9 + 500.0 * max(config.widths) + 100.0 * tokens,
            disk_bytes=300.0 * sum(config.widths) * len(config.readings),
            parallel=n_shards,
            note="each layer's active latents, sorted",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(f"{reading.key}-{point}", {"reading": reading.key, "point": str(point)})
            for reading in self.config.readings
            for point in self.config.points
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, sink = self.config, context.sink
        point = HookPoint(shard.params["point"])
        [reading] = [r for r in config.readings if r.key == shard.params["reading"]]
        name = dict(zip(config.points, layer_names(config.points), strict=True))[point]
        name = name if reading.ablation is None else f"{name} ({reading.ablation})"
        text = reading_text(run, config, reading)
        layout = text.layout
        columns = read_columns(run, config, reading, point)
        notes = _numpy(read_notes(run, config, reading, TOKENS_FILE, f"{point}/"))
        sink.message(f"{name} - Aggregated activations, L1, L2, nonzero counts, total counts")
        positions = _positions(notes, layout, columns.d_sae, config.losses.l1_weight)
        sink.message(f"{name} - Computed token-level metrics")
        write_tensors(context.folder / POSITIONS, _tensors(positions))
        sink.message(f"{name} - Stored token means and stds")
        sink.message(f"{name} - Computed and stored token densities")
        sink.message(f"{name} - Stored SAE token L1, L2, and combined losses")
        has_losses = read_notes(run, config, reading, TOKENS_FILE, LOSSES)
        said = "Stored LLM token losses" if has_losses else "Set LLM token losses to None"
        sink.message(f"{name} - {said}")
        latents = latent_statistics(columns, layout)
        kept = _latents(columns, text, latents, config.seed)
        write_tensors(context.folder / LATENTS, _tensors(kept))
        summary = self._summary(run, reading, point, latents, notes, layout)
        write_json(context.folder / SUMMARY, without_nan(summary))
        sink.message(f"{name} - Computed and stored feature-level stats")

    def _summary(
        self,
        run: Run,
        reading: Reading,
        point: HookPoint,
        latents: LatentStatistics,
        notes: dict[str, np.ndarray],
        layout: Layout,
    ) -> dict[str, Any]:  # Any: JSON values.
        sums = read_notes(run, self.config, reading, SEQUENCES_FILE, f"{point}/")
        found = explained(_numpy(sums), self.config.seed)
        text = layout.counted(TEXT)
        active = np.where(text, notes["count"], 0).sum(axis=1).astype(float)
        return {
            "explained_variance": list(found.explained_variance),
            "mean_square_error": list(found.mean_square_error),
            "mean": found.mean.tolist(),
            "l0": list(ratio_interval(active, text.sum(axis=1).astype(float), self.config.seed)),
            "dead": int((latents.text.count == 0).sum()),
            "d_sae": len(latents.text.count),
            "n_text_tokens": int(text.sum()),
            "n_tokens": int(layout.exists.sum()),
            "n_sequences": layout.n_sequences,
            "n_documents": reading_text(run, self.config, reading).n_documents,
        }

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        kept: dict[str, np.ndarray] = {}
        for reading in self.config.readings:
            found = read_notes(run, self.config, reading, TOKENS_FILE, LOSSES)
            if not found:
                continue
            layout = reading_text(run, self.config, reading).layout
            losses = found[""].numpy()
            # A loss has one position less than its sequence: the last one predicts nothing.
            counted = predicted(layout.exists, layout.is_text)
            mean = by_position(losses, counted)
            kept |= {f"{reading.key}/{k}": v for k, v in mean._asdict().items()}
            kept[f"{reading.key}/sums"] = np.where(counted, losses, 0.0).sum(axis=1)
            kept[f"{reading.key}/tokens"] = counted.sum(axis=1)
        write_tensors(folder / READINGS, _tensors(kept))


def _positions(
    notes: dict[str, np.ndarray], layout: Layout, d_sae: int, l1_weight: float
) -> dict[str, np.ndarray]:
    """`n_tokens`, `count`, `density`, `mean`, `std`, and of `l1`, `l2` and `combined` the mean and
    its standard error.
    """
    moments = TokenMoments(*(notes[name].ravel() for name in ("count", "mean", "squares")))
    l1 = l1_weight * notes["count"] * notes["mean"]
    losses = {"l1": l1, "l2": notes["error"], "combined": l1 + notes["error"]}
    found = dict(vars(position_statistics(moments, layout, d_sae)))
    for name, values in losses.items():
        mean = by_position(values, layout.exists)
        found |= {name: mean.mean, f"{name}_error": mean.error}
    return found


def half_name(halving: int, side: int) -> str:
    """Of one half (side 0 or 1) of one halving."""
    return f"half{halving}-{side}"


def _latents(
    columns: LatentColumns, text: TextSlice, found: LatentStatistics, seed: int
) -> dict[str, np.ndarray]:
    """Of each latent, `every/...` and `text/...` as in `LatentMoments`, `position_share`, and the
    rates of all blocks of sequences and of halves of them.
    """
    kept: dict[str, np.ndarray] = {"position_share": found.position_share}
    for which, moments in (("every", found.every), ("text", found.text)):
        kept |= {f"{which}/{name}": value for name, value in vars(moments).items()}
    unit = text.block.ravel()
    n = int(unit.max(initial=-1)) + 1
    kept |= _rates(columns, unit, np.zeros(n, np.int64), [ALL])
    for halving in range(N_HALVINGS):
        # The same halves at every layer: blocks are dealt, not latents.
        order = stream(seed, "halves", halving).permutation(n)
        kept |= _rates(columns, unit, order % 2, [half_name(halving, side) for side in (0, 1)])
    return kept


def _rates(
    columns: LatentColumns, unit: np.ndarray, group: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """`n`, `rate` and `variance` of each group of blocks."""
    rates = unit_rates(columns, unit, group, len(names))
    kept: dict[str, np.ndarray] = {}
    for g, name in enumerate(names):
        kept[f"{name}/n"] = rates.n[g : g + 1]
        kept[f"{name}/rate"] = rates.mean[:, g].copy()
        kept[f"{name}/variance"] = rates.variance[:, g].copy()
    return kept


def load_statistics(
    run: Run, reading: Reading, point: HookPoint
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:  # Any: JSON values.
    """Of latents, of positions, and the summary of one SAE in one reading."""
    folder = run.shard_folder(STATISTICS, f"{reading.key}-{point}")
    latents, positions = (_numpy(read_tensors(folder / file)) for file in (LATENTS, POSITIONS))
    return latents, positions, read_json(folder / SUMMARY)


def text_moments(latents: dict[str, np.ndarray], which: str = "text") -> LatentMoments:
    """What `load_statistics` gave of latents, over text tokens or over `every`."""
    names = ("count", "density", "mean", "std", "maximum", "quantiles")
    return LatentMoments(**{name: latents[f"{which}/{name}"] for name in names})


def _numpy(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
