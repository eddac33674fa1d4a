"""Part `layer`: the fused form of a layer for one token, beside the layer of transformers.

Both get 32 vectors, as the training of a classifier gives them, forward alone and with gradients
for the input. The peer is called with its rotary angles made and without a mask, which is all that
can be spared it. Bytes are those that loading took from the files: by the loader's own count, and
by the system's (`rchar` of /proc/self/io), which knows nothing of it.
"""

import gc
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.harness import Contender
from benchmarks.plugin_parts import Part, compare
from fluoroscope.models.loading import quiet
from fluoroscope.models.single_layer.layer_tensors import LayerTensors
from fluoroscope.models.single_layer.layouts import Form
from fluoroscope.models.single_layer.loading import load_layer
from fluoroscope.models.single_layer.one_token import one_token_layer
from fluoroscope.models.single_layer.whole import stream_of, whole_layer

BATCH = 32
FEWER = (10, 17)
"""Percent of bytes that are to be left out, both ends included."""

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """Of the layers of a Llama."""

    name: str
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    n_layers: int = 1


CUT = Shape("Llama 3.1 cut to d 1024", 1024, 3584, 8, 2, n_layers=4)
LLAMA_31 = Shape("Llama 3.1 8B", 4096, 14336, 32, 8)
LLAMA_2 = Shape("Llama 2 7B", 4096, 11008, 32, 32)


def write_llama(folder: Path, shape: Shape) -> None:
    """A model of random weights in bfloat16, in several files; its vocabulary is tiny."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    n_bytes = 2 * sum(weight.numel() for weight in network.parameters())
    with quiet():
        network.save_pretrained(folder, max_shard_size=n_bytes // 3)


def loaded(shape: Shape, form: Form) -> LayerTensors:
    """The last layer of such a model, through files."""
    with tempfile.TemporaryDirectory() as folder:
        write_llama(Path(folder), shape)
        return load_layer(folder, -1, form=form)


def layers(rounds: int, is_quick: bool) -> Part:
    part = Part()
    for shape in [CUT] if is_quick else [CUT, LLAMA_31, LLAMA_2]:
        with tempfile.TemporaryDirectory() as folder:
            write_llama(Path(folder), shape)
            # What is read on first use of a module is not of the layer.
            load_layer(folder, 0)
            token, token_bytes = _counted(folder, "token")
            whole, whole_bytes = _counted(folder, "sequence")
        part.join(_bytes(shape, token, whole, (token_bytes, whole_bytes)))
        part.join(_speed(shape, token, whole, rounds))
        del token, whole
        gc.collect()
    part.conditions["layer"] = f"{BATCH} vectors, float32, random weights of the shape"
    return part


def _bytes(
    shape: Shape, token: LayerTensors, whole: LayerTensors, counted: tuple[int | None, int | None]
) -> Part:
    part = Part()
    for name, tensors, by_system in zip(
        ("bytes of the whole layer", "bytes for one token"),
        (whole, token),
        counted[::-1],
        strict=True,
    ):
        ratio = tensors.bytes_read / whole.bytes_read
        shown = "" if tensors is whole else f"{ratio:.3f}"
        note = "" if by_system is None else f"{by_system / 1e6:,.1f} MB by the system's count"
        cost = f"{tensors.bytes_read / 1e6:,.1f} MB"
        part.rows.append([shape.name, name, cost, shown, "", f"bfloat16 files; {note}"])
    fewer = 100 * (1 - token.bytes_read / whole.bytes_read)
    goal = f"{shape.name}: {FEWER[0]} to {FEWER[1]} % fewer bytes in whole percent, {fewer:.1f} %"
    part.goals[goal] = FEWER[0] <= round(fewer) <= FEWER[1]
    read = [name for name in token.tensors if "q_proj" in name or "k_proj" in name]
    part.goals[f"{shape.name}: queries and keys loaded, {len(read)} tensors"] = not read
    if counted[0] is not None:
        # The rest is the configuration and the index of files.
        extra = counted[0] - token.bytes_read
        goal = f"{shape.name}: the system counts no more than was said, {extra:+,} bytes"
        part.goals[goal] = extra <= 1 << 20
    return part


def _speed(shape: Shape, token: LayerTensors, whole: LayerTensors, rounds: int) -> Part:
    block = whole_layer(whole)
    assert block.rotary is not None, "a Llama has rotary angles"
    angles = block.rotary(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64))
    fused = one_token_layer(token)

    def theirs(x: Tensor) -> Tensor:
        found = block.block(x[:, None], attention_mask=None, position_embeddings=angles)
        return stream_of(found)[:, 0]

    x = torch.randn(BATCH, shape.d_model, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(fused(x), theirs(x), atol=1e-3, rtol=1e-3)
    repeats = max(1, round(2e9 / (shape.d_model * shape.d_mlp * BATCH)))
    part = Part()
    for how, learns in (("forward", False), ("forward and backward", True)):
        ways: tuple[tuple[str, Function], ...] = (("transformers", theirs), ("fused", fused))
        contenders = [
            Contender(f"{name}, {how}", _passes(function, x, repeats, learns), repeats)
            for name, function in ways
        ]
        found = compare(contenders, rounds)
        part.join(found.part(shape.name, "a batch"))
        times = found.times(f"fused, {how}")
        part.goals[f"{shape.name}, {how}: never slower, upper end {times.high:.3f}"] = (
            times.high <= 1
        )
    return part


def _passes(function: Function, x: Tensor, repeats: int, learns: bool) -> Callable[[], None]:
    def run() -> None:
        mode: AbstractContextManager[object] = nullcontext() if learns else torch.no_grad()
        with mode:
            for _ in range(repeats):
                given = x.clone().requires_grad_(learns)
                found = function(given)
                if learns:
                    found.sum().backward()

    return run


def _counted(folder: str, form: Form) -> tuple[LayerTensors, int | None]:
    """Also what the system says was read meanwhile; None where it does not say."""
    before = _bytes_of_process()
    tensors = load_layer(folder, -1, form=form)
    after = _bytes_of_process()
    return tensors, None if before is None or after is None else after - before


def _bytes_of_process() -> int | None:
    place = Path("/proc/self/io")
    if not place.exists():
        return None
    return int(place.read_text().split("rchar:")[1].split()[0])
