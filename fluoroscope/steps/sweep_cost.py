"""What a sweep will cost, before anything runs: passes, tokens, arithmetic, memory."""

from typing import NamedTuple

from fluoroscope.interventions.positions import GENERATED, LAST, Positions
from fluoroscope.models.shape import BYTES, ModelShape
from fluoroscope.runs.step import Cost
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sweep_config import SweepConfig

_SHARD_BYTES = 8e3
"""What the files of a shard take without any text: names and types of columns, checksums."""


class SweepWork(NamedTuple):
    """How much a sweep reads and writes, and in how many passes."""

    cells: int
    """Edits x prompts, controls and baselines among them."""

    texts: int
    prompt_tokens: int
    """Tokens of prompts that are read: each prompt once a shard, each cell's edited part once."""

    new_tokens: int
    """Tokens that are written, at most."""

    passes: int
    """Times that the network is called."""

    naive_tokens: int
    """Tokens that a script reads which writes one text after another without a cache."""


def sweep_work(sweep: SweepConfig, n_parts: int, prompt_length: int, n_edited: int) -> SweepWork:
    """Of prompts of `prompt_length` tokens, the last `n_edited` of which are read under edits."""
    n_prompts, n_cells = len(sweep.prompts), len(sweep.cells())
    texts = n_prompts * n_cells * sweep.texts.trials
    shared = n_prompts * n_parts * prompt_length
    growing = sweep.texts.max_tokens * (prompt_length + sweep.texts.max_tokens / 2)
    return SweepWork(
        cells=n_prompts * n_cells,
        texts=texts,
        prompt_tokens=shared + n_prompts * n_cells * n_edited,
        new_tokens=texts * sweep.texts.max_tokens,
        passes=n_prompts * n_parts * (2 + sweep.texts.max_tokens),
        naive_tokens=int(texts * growing),
    )


def sweep_cost(model: ModelConfig, shape: ModelShape, sweep: SweepConfig, n_parts: int) -> Cost:
    """The arithmetic of every token, its keys and values, and about 1 ms a block and pass."""
    n_tokens = max(prompt.n_tokens for prompt in sweep.prompts)
    is_last = set(Positions.parse(sweep.positions).parts) <= {*LAST.parts, *GENERATED.parts}
    work = sweep_work(sweep, n_parts, n_tokens, 1 if is_last else n_tokens)
    flops = shape.forward_flops_per_token(n_tokens) * (work.prompt_tokens + work.new_tokens)
    is_half = model.dtype != "float32"
    weights = float(shape.weight_bytes(model.dtype))
    n_shards = len(sweep.prompts) * n_parts
    columns = n_tokens + sweep.texts.max_tokens
    row = 2.0 * shape.n_layers * shape.n_kv_heads * shape.head_dim * columns * BYTES[model.dtype]
    saes = sum(8.0 * sae.d_sae * shape.d_model for sae in sweep.saes)
    return Cost(
        flops=0.0 if is_half else flops,
        half_flops=flops if is_half else 0.0,
        bytes_moved=weights * work.passes,
        overhead_s=1e-3 * (shape.n_layers + 1) * work.passes + 8e-4 * work.texts,
        memory_bytes=weights + saes + sweep.texts.tile * (row + 30.0 * shape.vocab_size) + 0.3e9,
        disk_bytes=2.0 * work.texts * (80 + 5 * sweep.texts.max_tokens) + _SHARD_BYTES * n_shards,
        parallel=n_shards,
        note=(
            f"{work.texts:,} texts of {work.cells:,} cells in {work.passes:,} passes; one by one "
            f"without a cache {work.naive_tokens / (work.prompt_tokens + work.new_tokens):,.0f} "
            "times as many tokens"
        ),
    )
