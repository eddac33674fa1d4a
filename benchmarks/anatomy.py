"""Exact statistics of latents: peak memory and time, beside keeping activations densely.

A process of its own for each measurement, because the peak of a process never falls. Memory is
what a process has at its peak above what it had before it began, in which weights and libraries
are. The activations are synthetic: of each token as many latents as a usual SAE has active, drawn
so that some are frequent and most are rare.

- *whole*: the goal. 12 layers of 24,576 latents on 400 sequences of 1,024 tokens.
- *side by side*: a size that the dense way can still do. The dense way is the original's: all
  activations of a layer in float16, then a loop over latents with one quantile call each.
- *reading*: GPT-2's sizes with 12 random SAEs, all layers in one pass of the model.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.harness import Outcome, command_line

D_SAE, L0, CONTEXT, D_MODEL, N_LAYERS = 24_576, 60, 1024, 768, 12
N_WHOLE, N_SMALL, N_READ = 400, 16, 2
SHARD = 25
ALLOWED_GB = 1.5

WHOLE, OURS, DENSE, READING = "whole", "ours", "dense", "reading"


def measure(rounds: int) -> Outcome:
    whole, reading = _child(WHOLE), _child(READING)
    pairs = [(_child(OURS), _child(DENSE)) for _ in range(rounds)]
    speed = sorted(dense["seconds"] / ours["seconds"] for ours, dense in pairs)
    memory = sorted(dense["peak_gb"] / ours["peak_gb"] for ours, dense in pairs)
    middle = len(pairs) // 2
    ours, dense = pairs[middle]
    worst = max(whole["peak_gb"], reading["peak_gb"])

    def row(what: str, found: dict[str, float], of: str) -> list[str]:
        return [what, of, f"{found['peak_gb']:.2f}", f"{found['seconds']:,.1f}"]

    small = f"1 layer, {N_SMALL} x {CONTEXT:,} tokens"
    return Outcome(
        title="Statistics of latents",
        columns=["what", "of", "peak GB above the start", "CPU seconds"],
        rows=[
            row("sorted entries", whole, f"{N_LAYERS} layers, {N_WHOLE} x {CONTEXT:,} tokens"),
            row("sorted entries", ours, small),
            row("dense float16, a loop of quantiles", dense, small),
            row("reading, all layers in one pass", reading, f"{N_READ} x {CONTEXT:,} tokens"),
        ],
        timings={},
        conditions={
            "activations": f"synthetic, {L0} of {D_SAE:,} latents active at a token",
            "entries of the whole": f"{whole['entries'] / 1e6:,.0f} million",
            "on disk": f"{whole['disk_gb']:.2f} GB",
            "reading": f"GPT-2's sizes, random weights, {N_LAYERS} SAEs of {D_SAE:,} latents",
            "dense": "with and without BOS, as the original; its whole would be "
            f"{2 * N_WHOLE * CONTEXT * D_SAE / 1e9:,.0f} GB a layer",
            "dense / sorted, CPU": f"{speed[middle]:.1f} ({speed[0]:.1f} to {speed[-1]:.1f})",
            "dense / sorted, memory": f"{memory[middle]:.1f} ({memory[0]:.1f} to {memory[-1]:.1f})",
        },
        goals={
            f"at most {ALLOWED_GB} GB above weights: {worst:.2f}": worst <= ALLOWED_GB,
        },
    )


def _child(what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.anatomy", "--child", what]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(found.splitlines()[-1])


def child(what: str) -> dict[str, float]:
    """One job in this process."""
    import numba
    import torch

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        match what:
            case "whole":
                return sorted_entries(Path(folder), N_LAYERS, N_WHOLE)
            case "ours":
                return sorted_entries(Path(folder), 1, N_SMALL)
            case "dense":
                return dense_way(N_SMALL)
            case _:
                return reading(Path(folder))


class _Peak:
    """What a process takes above what it has now; making data is part of it, and small."""

    def __init__(self) -> None:
        self._before = psutil.Process().memory_info().rss
        self._cpu = time.process_time()

    def found(self, **others: float) -> dict[str, float]:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds = time.process_time() - self._cpu
        return {"peak_gb": (most - self._before) / 1e9, "seconds": seconds, **others}


def _sequence(layer: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents [tokens, L0] and their activations; rare latents are the many."""
    random = np.random.default_rng([layer, q])
    place = random.random((CONTEXT, L0)) ** 3
    latents = np.sort((place * (D_SAE - L0)).astype(np.int32), axis=1)
    # Strictly ascending, as an encoder gives them.
    latents += np.arange(L0, dtype=np.int32)
    return latents, random.gamma(2.0, size=(CONTEXT, L0)).astype(np.float32)


def sorted_entries(folder: Path, n_layers: int, n: int) -> dict[str, float]:
    """As the study's steps do it: shards of sequences, then layer by layer."""
    import torch

    from fluoroscope.features.activation_columns import ColumnsWriter, LatentColumns
    from fluoroscope.features.statistics import (
        Layout,
        TokenMoments,
        latent_statistics,
        position_statistics,
        token_moments,
    )
    from fluoroscope.features.unit_rates import unit_rates
    from fluoroscope.sae.sparse_kernels import SparseLatents
    from fluoroscope.studies.anatomy.steps.statistics import N_HALVINGS

    names = {f"{layer}.resid_pre": D_SAE for layer in range(n_layers)}
    offsets = torch.arange(0, CONTEXT * L0 + 1, L0)
    _compile(folder / "warm")
    peak, making = _Peak(), 0.0
    moments: dict[str, list[TokenMoments]] = {name: [] for name in names}
    for start in range(0, n, SHARD):
        writer = ColumnsWriter(folder / f"shard-{start:05d}", names)
        for q in range(start, min(start + SHARD, n)):
            for layer, name in enumerate(names):
                begin = time.process_time()
                random = _sequence(layer, q)
                making += time.process_time() - begin
                latents, values = (torch.from_numpy(part.ravel()) for part in random)
                found = SparseLatents(offsets, latents, values, D_SAE)
                writer.add(name, found, q * CONTEXT)
                moments[name].append(token_moments(found))
        writer.close()
    layout = Layout(np.ones((n, CONTEXT), bool), np.ones((n, CONTEXT), bool))
    entries = 0
    for name in names:
        columns = LatentColumns(sorted(folder.glob(f"shard-*/{name}/part-*")))
        entries += int(columns.counts.sum())
        latent_statistics(columns, layout)
        unit = np.repeat(np.arange(n), CONTEXT)
        for halving in range(1 + N_HALVINGS):
            unit_rates(columns, unit, (np.arange(n) + halving) % 2, 2)
        parts = [
            [getattr(one, key) for one in moments[name]] for key in ("count", "mean", "squares")
        ]
        position_statistics(TokenMoments(*map(np.concatenate, parts)), layout, D_SAE)
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    found = peak.found(entries=entries, disk_gb=disk / 1e9)
    return found | {"seconds": found["seconds"] - making}


def _compile(folder: Path) -> None:
    """Loops are compiled, or fetched from their cache, before anything is measured."""
    import torch

    from fluoroscope.features.activation_columns import ColumnsWriter, LatentColumns
    from fluoroscope.features.statistics import (
        Layout,
        latent_statistics,
        token_moments,
    )
    from fluoroscope.features.unit_rates import unit_rates
    from fluoroscope.sae.sparse_kernels import SparseLatents

    latents = SparseLatents(torch.tensor([0, 1]), torch.zeros(1).int(), torch.ones(1), 2)
    token_moments(latents)
    writer = ColumnsWriter(folder, {"a": 2})
    writer.add("a", latents, 0)
    writer.close()
    layout = Layout(np.ones((1, 1), bool), np.ones((1, 1), bool))
    columns = LatentColumns(list((folder / "a").iterdir()))
    latent_statistics(columns, layout)
    unit_rates(columns, np.zeros(1, np.int64), np.zeros(1, np.int64), 1)


def dense_way(n: int) -> dict[str, float]:
    """All activations in float16; means and deviations by sums, quantiles latent by latent."""
    peak = _Peak()
    dense = np.zeros((n, CONTEXT, D_SAE), np.float16)
    making = 0.0
    for q in range(n):
        begin = time.process_time()
        latents, values = _sequence(0, q)
        making += time.process_time() - begin
        np.put_along_axis(dense[q], latents, values.astype(np.float16), axis=1)
    levels = np.linspace(0.1, 1.0, 10)
    for first in (0, 1):
        part = dense[:, first:]
        count = (part > 0).sum(axis=(0, 1))
        total = part.sum(axis=(0, 1), dtype=np.float64)
        mean = total / np.maximum(count, 1)
        for i in range(D_SAE):
            values = part[:, :, i]
            active = values[values > 0].astype(np.float64)
            if len(active):
                np.quantile(active, levels)
                np.sqrt(((active - mean[i]) ** 2).mean())
    found = peak.found()
    return found | {"seconds": found["seconds"] - making}


def reading(folder: Path) -> dict[str, float]:
    """Some sequences through a model of GPT-2's sizes and 12 SAEs, as a shard reads them."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    from fluoroscope.features.activation_columns import ColumnsWriter
    from fluoroscope.models.hook_points import HookPoint
    from fluoroscope.models.language_model import LanguageModel
    from fluoroscope.models.tiny import tiny_model
    from fluoroscope.sae.topk import TopK, TopKConfig
    from fluoroscope.studies.anatomy.reading import SequenceReader

    network = AutoModelForCausalLM.from_config(GPT2Config())
    model = LanguageModel.from_network(network, tiny_model("gpt2").tokenizer, name="gpt2-sized")
    config = TopKConfig(d_model=D_MODEL, d_sae=D_SAE, k=L0)
    saes = {
        HookPoint(layer, "resid_pre"): TopK(config, layer).requires_grad_(False)
        for layer in range(N_LAYERS)
    }
    tokens = torch.randint(0, 50_000, (N_READ, CONTEXT))
    is_text = torch.arange(CONTEXT) > 0
    peak = _Peak()
    reader = SequenceReader(model, saes)
    writer = ColumnsWriter(folder, {str(point): D_SAE for point in saes})
    for q in range(N_READ):
        for point, layer in reader.read(tokens[q], is_text).layers.items():
            writer.add(str(point), layer.latents, q * CONTEXT)
    writer.close()
    return peak.found()


if __name__ == "__main__":
    if "--child" in sys.argv:
        sys.stdout.write(json.dumps(child(sys.argv[-1])) + "\n")
    else:
        command_line(measure, 3)
