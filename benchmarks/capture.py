"""Reading every layer's residual stream, against the bare forward pass and the usual way.

Peers: the bare forward pass of the network with and without its head (nothing is read), and
transformers' `output_hidden_states=True` with each layer copied, which is how hidden states
are commonly kept. Floors: the arithmetic of the forward pass at the speed of a plain matrix
product, and the memory traffic of one copy of all that is read.

Llama architecture with random weights, d_model 1024, 6 layers, 8 rows of 256 tokens, float32,
no key-value cache, one pinned thread.
"""

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.harness import (
    Contender,
    Outcome,
    command_line,
    copy_bytes_per_s,
    interleave,
    matmul_flops_per_s,
    speed_ratio,
)
from fluoroscope.activations.capture import capture
from fluoroscope.models.hook_points import STREAMS, parse_hook_points
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model

D_MODEL, N_LAYERS, N_ROWS, N_POSITIONS, N_VOCAB = 1024, 6, 8, 256, 8192
ROUNDS = 7

BARE, BARE_TRUNK, USUAL = "bare forward", "bare forward, no head", "output_hidden_states + copy"
OURS, OURS_ALL = "capture, all layers", "capture, all streams"


def build_model() -> LanguageModel:
    config = LlamaConfig(
        vocab_size=N_VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=4 * D_MODEL,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=N_POSITIONS,
    )
    network = AutoModelForCausalLM.from_config(config)
    tokenizer = tiny_model("llama").tokenizer
    return LanguageModel.from_network(network, tokenizer, name="benchmark-llama")


def contenders(model: LanguageModel, tokens: Tensor) -> list[Contender]:
    layers = parse_hook_points("all.resid_post", N_LAYERS)
    streams = parse_hook_points([f"all.{stream}" for stream in STREAMS[1:]], N_LAYERS)
    network, trunk = model.network, model.network.get_submodule("model")

    @torch.no_grad()
    def bare() -> None:
        network(input_ids=tokens, use_cache=False)

    @torch.no_grad()
    def bare_trunk() -> None:
        trunk(input_ids=tokens, use_cache=False)

    @torch.no_grad()
    def usual() -> None:
        output = network(input_ids=tokens, use_cache=False, output_hidden_states=True)
        _ = [hidden.clone() for hidden in output.hidden_states[1:]]

    n_tokens = tokens.numel()
    return [
        Contender(BARE, bare, n_tokens, "the peer of the goal; nothing is read"),
        Contender(BARE_TRUNK, bare_trunk, n_tokens, "nothing is read"),
        Contender(USUAL, usual, n_tokens, "last entry is after the final norm"),
        Contender(OURS, lambda: _drop(capture(model, tokens, layers)), n_tokens, "6 points"),
        Contender(OURS_ALL, lambda: _drop(capture(model, tokens, streams)), n_tokens, "24 points"),
    ]


def _drop(_: object) -> None:
    return None


def measure(rounds: int) -> Outcome:
    torch.manual_seed(0)
    model = build_model()
    tokens = torch.randint(3, N_VOCAB, (N_ROWS, N_POSITIONS))
    timings = interleave(contenders(model, tokens), rounds)
    rows = []
    for name, timing in timings.items():
        against = [str(speed_ratio(timing, timings[peer])) for peer in (BARE, BARE_TRUNK, USUAL)]
        rows.append([name, f"{timing.rate:,.0f}", *against, timing.note])
    rows += [_floor_row(name, seconds, tokens.numel()) for name, seconds in floors().items()]
    to_bare = speed_ratio(timings[OURS], timings[BARE])
    to_trunk = speed_ratio(timings[OURS], timings[BARE_TRUNK])
    to_usual = speed_ratio(timings[OURS], timings[USUAL])
    return Outcome(
        title="Reading the residual stream behind every layer",
        columns=["way", "tokens / CPU s", "vs bare", "vs no head", "vs usual way", "note"],
        rows=rows,
        timings=timings,
        conditions={
            "model": f"llama, d_model {D_MODEL}, {N_LAYERS} layers, vocabulary {N_VOCAB}",
            "batch": f"{N_ROWS} x {N_POSITIONS} tokens, no padding, no cache, float32",
            "rounds": rounds,
        },
        goals={
            f"at least 0.95 of the bare forward pass: {to_bare}": to_bare.median >= 0.95,
            f"at least 0.95 of it without its head: {to_trunk}": to_trunk.median >= 0.95,
            f"faster than output_hidden_states + copy: {to_usual}": to_usual.median > 1,
        },
    )


def floors() -> dict[str, float]:
    """CPU seconds that no implementation on this machine can do without."""
    n_tokens = N_ROWS * N_POSITIONS
    block_weights = 4 * D_MODEL**2 + 3 * 4 * D_MODEL**2
    attention = 2 * N_POSITIONS * D_MODEL
    flops = 2 * n_tokens * N_LAYERS * (block_weights + attention)
    read_bytes = 2 * 4 * n_tokens * D_MODEL * N_LAYERS
    return {
        "floor: arithmetic of the blocks": flops / matmul_flops_per_s(),
        "floor: one copy of what is read": read_bytes / copy_bytes_per_s(),
    }


def _floor_row(name: str, seconds: float, n_tokens: int) -> list[str]:
    return [name, f"{n_tokens / seconds:,.0f}", "", "", "", f"{seconds * 1e3:,.1f} ms"]


if __name__ == "__main__":
    command_line(measure, ROUNDS)
