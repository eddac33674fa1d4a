"""Peak memory of training SAEs on more and more tokens, from a store and from the model.

A process of its own for each measurement, because the peak of a process never falls: one makes
a corpus, its tokens and the activations of two layers on disk, the others train an SAE of each
layer on all of them. Given for N tokens and for 8 N; what is on disk may grow, what is in
memory must not. Preparing fills buffers of fixed size (2 M tokens, 65 k documents) that the
smaller N does not fill, so its peak stands in the table without a goal.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, command_line

if TYPE_CHECKING:
    from fluoroscope.models.language_model import LanguageModel

N_TOKENS, TIMES, ALLOWED = 100_000, 8, 1.10
D_MODEL, D_SAE, N_LAYERS, CONTEXT, BATCH, BUFFER_ROWS = 256, 512, 2, 64, 2048, 16384
PREPARE, STORE, STREAM = "preparing", "training from a store", "training streamed from the model"


def measure(rounds: int) -> Outcome:
    peaks: dict[tuple[str, int], float] = {}
    disk: dict[int, float] = {}
    for n_tokens in (N_TOKENS, TIMES * N_TOKENS):
        with tempfile.TemporaryDirectory() as folder:
            for what in (PREPARE, STORE, STREAM):
                # A corpus is made once.
                times = 1 if what == PREPARE else rounds
                peaks[what, n_tokens] = min(_peak(what, folder, n_tokens) for _ in range(times))
            files = Path(folder).rglob("*")
            disk[n_tokens] = sum(f.stat().st_size for f in files if f.is_file()) / 2**20
    growth = {
        what: peaks[what, TIMES * N_TOKENS] / peaks[what, N_TOKENS]
        for what in (PREPARE, STORE, STREAM)
    }
    return Outcome(
        title="Peak memory of training",
        columns=["what", *(f"MiB at {n:,} tokens" for n in disk), "ratio"],
        rows=[
            [what, *(f"{peaks[what, n]:,.0f}" for n in disk), f"{growth[what]:.3f}"]
            for what in growth
        ]
        + [["on disk", *(f"{mib:,.0f}" for mib in disk.values()), ""]],
        timings={},
        conditions={
            "model": f"llama, d_model {D_MODEL}, {N_LAYERS} layers, random weights, float32",
            "training": f"batch_topk of each layer, d_sae {D_SAE}, k 16, batch {BATCH}, "
            f"buffer_rows {BUFFER_ROWS}, one pass",
            "peak": "resident set of a fresh process, torch and transformers in it",
        },
        goals={
            f"{what}: {TIMES} times the tokens, {growth[what]:.3f} times the peak": growth[what]
            <= ALLOWED
            for what in (STORE, STREAM)
        },
    )


def _peak(what: str, folder: str, n_tokens: int) -> float:
    """MiB."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", what, folder, str(n_tokens)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(found.splitlines()[-1])


def child(what: str, folder: Path, n_tokens: int) -> float:
    """One job, in this process; the peak in MiB."""
    import torch

    from fluoroscope.models.tiny import tiny_model

    torch.set_num_threads(1)
    model = tiny_model(
        "llama", hidden_size=D_MODEL, num_hidden_layers=N_LAYERS, intermediate_size=D_MODEL
    )
    if what == PREPARE:
        prepare(model, folder, n_tokens)
    else:
        train(model, folder, n_tokens, from_store=what == STORE)
    # Linux gives KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepare(model: "LanguageModel", folder: Path, n_tokens: int) -> None:
    from fluoroscope.activations.extract_config import ExtractConfig
    from fluoroscope.activations.store import finish_store
    from fluoroscope.activations.store_writer import write_activation_shard
    from fluoroscope.data.corpora import write_token_store
    from fluoroscope.data.corpus_config import CorpusConfig
    from fluoroscope.models.hook_points import parse_hook_points

    text = folder / "text.txt"
    with text.open("w") as file:
        file.writelines(f"line {i} of a text\n" for i in range(n_tokens // 10))
    corpus = CorpusConfig(source=str(text), context=CONTEXT)
    tokens = write_token_store(corpus, model.tokenizer, folder / "tokens", n_tokens=n_tokens)
    points = parse_hook_points("all.resid_post", N_LAYERS)
    for split in ("train", "validation"):
        for windows in tokens.ranges(split, 1024):
            place = folder / "store" / "shards" / windows.key
            extract = ExtractConfig(tile_windows=32)
            write_activation_shard(model, tokens, windows, points, extract, place)
    finish_store(folder / "store")


def train(model: "LanguageModel", folder: Path, n_tokens: int, *, from_store: bool) -> None:
    from fluoroscope.activations.extract_config import ExtractConfig
    from fluoroscope.activations.sources import ModelSource, StoreSource
    from fluoroscope.activations.store import ActivationStore
    from fluoroscope.activations.stream import ActivationStream, rows_in_order
    from fluoroscope.data.token_store import TokenStore
    from fluoroscope.models.hook_points import parse_hook_points
    from fluoroscope.sae.batch_topk import BatchTopKConfig
    from fluoroscope.sae.training import Rows, SAETrainer, SAEVariant
    from fluoroscope.sae.training_config import TrainingConfig

    if from_store:
        store = ActivationStore(folder / "store")
        training, validation = StoreSource(store), StoreSource(store, "validation")
    else:
        tokens, extract = TokenStore(folder / "tokens"), ExtractConfig(tile_windows=32)
        training = ModelSource(model, tokens, config=extract)
        validation = ModelSource(model, tokens, "validation", config=extract)
    points = parse_hook_points("all.resid_post", N_LAYERS)
    n_samples = n_tokens // BATCH * BATCH
    stream = ActivationStream(
        training,
        points,
        batch_size=BATCH,
        seed=0,
        n_samples=n_samples,
        buffer_rows=BUFFER_ROWS,
    )
    first, held_out = (next(rows_in_order(s, points, 2048)) for s in (training, validation))
    config = BatchTopKConfig(d_model=D_MODEL, d_sae=D_SAE, k=16)
    SAETrainer(
        [SAEVariant(str(point), point, "batch_topk", config, 0) for point in points],
        stream,
        {point: Rows(first[point], held_out[point]) for point in points},
        TrainingConfig(batch_size=BATCH),
        n_samples // BATCH,
    ).train()


if __name__ == "__main__":
    if "--child" in sys.argv:
        what, folder, n_tokens = sys.argv[sys.argv.index("--child") + 1 :]
        sys.stdout.write(json.dumps(child(what, Path(folder), int(n_tokens))) + "\n")
    else:
        command_line(measure, 1)
