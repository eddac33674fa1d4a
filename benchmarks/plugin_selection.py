"""Part `selection`: what all layers make of texts, in one pass or in a pass for each layer.

The plan's way passes the whole model for each layer (`output_hidden_states`, of which one is
kept), holds that layer's states of all positions in half precision, and pools them at the end.
Here it is spared what it can be: texts are padded to their batch only, one layer's states are
held at a time, the head is left out, and pooling is by batches. Beside both stands one pass with
`output_hidden_states`, pooled at once. All must give the same vectors.

Peaks of memory are of a process of its own each, above what it holds before it reads; of the
plan's way two layers are enough, as every layer takes the same.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Contender
from benchmarks.plugin_parts import N_ROUNDS, Part, compare, sst2
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.single_layer.known import STORIES, llm_source
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.plugin.selection.features import read_layers

BATCH, MAX_LENGTH = 16, 128
RANDOM = "12 layers of d 256"
PLAN, AT_ONCE, OURS = "a pass for each layer", "one pass, output_hidden_states", "read_layers"

Batches = list[tuple[Tensor, Tensor]]


def selection(rounds: int, is_quick: bool) -> Part:
    part = Part()
    n, n_kept = (16, 32) if is_quick else (64, 400)
    for name in (STORIES, RANDOM):
        model = _model(name)
        texts = _texts(n)
        _check_same(model, texts)
        ways = {PLAN: by_layer, AT_ONCE: at_once, OURS: ours}
        contenders = [
            Contender(way, lambda read=read, m=model, t=texts: read(m, t), n)
            for way, read in ways.items()
        ]
        part.join(compare(contenders, min(rounds, N_ROUNDS)).part(name, "a text"))
        n_runs = 1 if is_quick else 3
        peaks = {way: _peak(way, name, n_kept, n_runs) for way in ways}
        for way, peak in peaks.items():
            ratio = "" if way == PLAN else f"{peak / peaks[PLAN]:.3f}"
            row = [name, f"peak memory, {way}", f"{peak:,.1f} MiB", ratio, ""]
            note = f"above the model, {n_kept} texts, median of {n_runs}"
            part.rows.append([*row, note])
    part.conditions["selection"] = f"{n} texts of SST-2 timed, batch {BATCH}, {MAX_LENGTH} tokens"
    return part


def by_layer(model: LanguageModel, texts: Sequence[str], n_layers: int | None = None) -> Tensor:
    """[layers, n, d_model]; of the first `n_layers` where they are given."""
    batches = _batches(model, texts)
    longest = max(ids.shape[1] for ids, _ in batches)
    found = []
    for layer in range(n_layers or model.n_layers):
        states = torch.zeros(len(texts), longest, model.d_model, dtype=torch.float16)
        for start, (ids, mask) in zip(range(0, len(texts), BATCH), batches, strict=True):
            every = _hidden(model, ids, mask)
            states[start : start + len(ids), : ids.shape[1]] = every[layer + 1].half()
        found.append(_pooled_half(states, batches))
    return torch.stack(found)


def at_once(model: LanguageModel, texts: Sequence[str]) -> Tensor:
    parts = []
    for ids, mask in _batches(model, texts):
        states = _hidden(model, ids, mask)[1:]
        parts.append(torch.stack([_mean(one, mask) for one in states]))
    return torch.cat(parts, dim=1)


def ours(model: LanguageModel, texts: Sequence[str]) -> Tensor:
    labels, ids = [row % 2 for row in range(len(texts))], [str(row) for row in range(len(texts))]
    given = [(text, None) for text in texts]
    found = read_layers(model, given, labels, ids, max_length=MAX_LENGTH, batch_size=BATCH)
    return torch.stack(found.states)


def _check_same(model: LanguageModel, texts: Sequence[str]) -> None:
    # The library's last entry is behind the final norm, ours before it.
    mine = ours(model, texts)[:-1]
    torch.testing.assert_close(at_once(model, texts)[:-1], mine, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_layer(model, texts, 2), mine[:2], atol=1e-2, rtol=1e-2)


def _hidden(model: LanguageModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found = model.network.base_model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        )
    return found.hidden_states


def _pooled_half(states: Tensor, batches: Batches) -> Tensor:
    starts = range(0, len(states), BATCH)
    return torch.cat(
        [
            _mean(states[start : start + len(mask), : mask.shape[1]].float(), mask)
            for start, (_, mask) in zip(starts, batches, strict=True)
        ]
    )


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _batches(model: LanguageModel, texts: Sequence[str]) -> Batches:
    rows = [
        model.tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"] for text in texts
    ]
    found = []
    for start in range(0, len(rows), BATCH):
        some = [torch.tensor(row) for row in rows[start : start + BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(some, True, model.pad_token_id)
        lengths = torch.tensor([len(row) for row in some])
        found.append((ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()))
    return found


def _model(name: str) -> LanguageModel:
    if name == STORIES:
        return LanguageModel.load(llm_source(STORIES))
    sizes = {"hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 12}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}
    return tiny_model("llama", **sizes, **heads, max_position_embeddings=256)


def _texts(n: int) -> list[str]:
    found = sst2(n)
    if found is not None:
        return [one.text for one in found]
    return [" ".join(["a film that is what it is"] * (1 + row % 6)) for row in range(n)]


def _peak(way: str, name: str, n: int, n_runs: int) -> float:
    """MiB above what a fresh process held before; the median, as memory is not always reused."""
    command = [sys.executable, "-m", "benchmarks.plugin_selection", way, name, str(n)]

    def run() -> float:
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(found.splitlines()[-1])

    return statistics.median(run() for _ in range(n_runs))


def _measure_peak(way: str, name: str, n: int) -> float:
    torch.set_num_threads(1)
    model, texts = _model(name), _texts(n)
    # What is made once, on first use, is no part of it. Short, or the memory that this frees would
    # be held, and be used again unseen by those who need little.
    ours(model, ["a"] * BATCH)
    at_once(model, ["a"] * BATCH)
    # Makes the peak what is held now (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    match way:
        case "a pass for each layer":
            by_layer(model, texts, 2)
        case "one pass, output_hidden_states":
            at_once(model, texts)
        case _:
            ours(model, texts)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure_peak(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
