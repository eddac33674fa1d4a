"""Patches of Llama-3.1-8B's shape on a GPU: tokens a second, and the seed's whole sweep.

Random weights in bfloat16 (what is computed does not depend on what they are). Measured are
256 rows with 256 different edits over all layers against the same engine without edits, and
exact screening of one layer in four; everything else is multiplication, and every factor is
shown. `--tiny` runs the same lines on a small model on the CPU, to see that they work.

    python -m benchmarks.interventions_gpu --markdown benchmarks/results/interventions_gpu.md
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.harness import Outcome, output_parser, publish
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.sae.latent_edits import SetLatent, latent_block

FEATURES, VALUES, PROMPTS = 9_300, 2, 100
TOP, TRIALS, N_NEW = 300, 200, 20
GOAL_MINUTES = 15.0
N_PROMPT = 200


@dataclass(frozen=True)
class Size:
    """What is measured."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_mlp: int
    vocab: int
    d_sae: int
    rows: int
    device: str
    dtype: torch.dtype


LLAMA = Size(4096, 32, 32, 8, 14336, 128_256, 32_768, 256, "cuda", torch.bfloat16)
TINY = Size(64, 4, 8, 4, 128, 512, 256, 32, "cpu", torch.float32)


def build(size: Size) -> LanguageModel:
    config = LlamaConfig(
        vocab_size=size.vocab,
        hidden_size=size.d_model,
        intermediate_size=size.d_mlp,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        num_key_value_heads=size.n_kv_heads,
        max_position_embeddings=1024,
    )
    with torch.device(size.device):
        network = AutoModelForCausalLM.from_config(config, dtype=size.dtype)
    network.requires_grad_(False)
    return LanguageModel.from_network(network, tiny_model("llama").tokenizer, name="llama-shape")


def seconds(work: Callable[[], object], device: str, repeats: int = 3) -> float:
    """The median of some runs, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[repeats // 2]


def measure(size: Size) -> Outcome:
    torch.manual_seed(0)
    model = build(size)
    # One SAE serves every layer: its weights are random like the model's, and 32 would not add
    # anything but memory.
    sae = JumpReLU(JumpReLUConfig(d_model=size.d_model, d_sae=size.d_sae)).to(size.device)
    sae.requires_grad_(False)
    prompt = tuple(torch.randint(3, size.vocab, (N_PROMPT,)).tolist())
    requests = [
        Request(prompt=prompt, seed=i, max_tokens=N_NEW, stop_tokens=()) for i in range(size.rows)
    ]
    rows: list[EditSet] = [
        {HookPoint(i % size.n_layers, "resid_post"): SetLatent(sae, i % size.d_sae, 3.0)}
        for i in range(size.rows)
    ]

    def edited() -> None:
        with row_edits(model, rows, LAST | GENERATED):
            generate(model, requests, max_rows=size.rows)

    plain_s = seconds(lambda: generate(model, requests, max_rows=size.rows), size.device)
    edited_s = seconds(edited, size.device)
    read_s = seconds(lambda: Screen(model, prompt), size.device)
    screen = Screen(model, prompt)
    layers = range(0, size.n_layers, 4 if size.n_layers > 4 else 1)
    n = FEATURES * VALUES // size.n_layers
    cell_s = []
    for layer in layers:
        point = HookPoint(layer, "resid_post")
        latents = torch.arange(n, device=size.device) % size.d_sae
        block = latent_block(sae, point, latents, torch.full((n,), 3.0, device=size.device))
        spent = seconds(lambda b=block: screen.decisions(b, {"stop": [5]}), size.device, 1)
        cell_s.append(spent / n)
    mean_cell_s = sum(cell_s) / len(cell_s)
    tokens = size.rows * N_NEW
    exact = FEATURES * VALUES * PROMPTS * mean_cell_s + PROMPTS * read_s
    texts = TOP * VALUES * TRIALS
    sampled = texts / size.rows * edited_s
    total = (exact + sampled) / 60
    return Outcome(
        title="Patches of Llama-3.1-8B's shape",
        columns=["what", "measured", "times", "gives"],
        rows=[
            ["no edits", f"{tokens / plain_s:,.0f} tokens/s", "", ""],
            ["256 different edits", f"{tokens / edited_s:,.0f} tokens/s", "", ""],
            ["ratio", f"{plain_s / edited_s:.3f}", "", ""],
            [
                "exact screening",
                f"{1e6 * mean_cell_s:,.1f} us a cell (mean over layers {list(layers)})",
                f"{FEATURES:,} features x {VALUES} values x {PROMPTS} prompts",
                f"{exact / 60:.2f} min",
            ],
            ["reading a prompt", f"{1e3 * read_s:,.1f} ms", f"{PROMPTS} prompts", "in the above"],
            [
                "sampling",
                f"{edited_s:.2f} s for {size.rows} texts of {N_NEW} tokens",
                f"{TOP} features x {VALUES} values x {TRIALS} trials",
                f"{sampled / 60:.2f} min",
            ],
            ["the seed's whole sweep", "", "", f"{total:.2f} min"],
        ],
        timings={},
        conditions={
            "model": f"d_model {size.d_model}, {size.n_layers} layers, {size.dtype}",
            "device": torch.cuda.get_device_name() if size.device == "cuda" else "cpu",
            "prompt": f"{N_PROMPT} tokens",
        },
        goals={
            f"256 different edits keep 0.80: {plain_s / edited_s:.3f}": plain_s / edited_s >= 0.8,
            f"below {GOAL_MINUTES:.0f} minutes: {total:.2f}": total < GOAL_MINUTES,
        },
    )


if __name__ == "__main__":
    parser = output_parser()
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    arguments: argparse.Namespace = parser.parse_args()
    publish(measure(TINY if arguments.tiny else LLAMA), arguments)
