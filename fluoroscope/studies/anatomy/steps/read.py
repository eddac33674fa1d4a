"""Sequences -> active latents and losses, all layers in one pass of the model (`read/`).

read/shards/<reading>-<start>/<hook point>/part-*.safetensors   active latents, sorted by latent
read/shards/<reading>-<start>/tokens.safetensors                numbers of each token
read/shards/<reading>-<start>/sequences.safetensors             sums of each sequence

A shard is some sequences of a reading; a worker may take any. What comes out does not depend on
how many sequences a shard has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fluoroscope.core.tensors import open_tensors, write_tensors
from fluoroscope.features.activation_columns import (
    BYTES_WRITTEN,
    ColumnsWriter,
    LatentColumns,
)
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import forward_cost, load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.anatomy.plans import AnatomyConfig, Reading
from fluoroscope.studies.anatomy.reading import NORM_STREAMS, SequenceReader, SequenceReading
from fluoroscope.studies.anatomy.sae_sets import load_set
from fluoroscope.studies.anatomy.settings import Slice
from fluoroscope.studies.anatomy.slices import TextSlice, text_slices
from fluoroscope.studies.anatomy.steps.texts import TEXTS, open_texts

READ = "read"
TOKENS_FILE, SEQUENCES_FILE = "tokens.safetensors", "sequences.safetensors"

LOSSES = "losses"
"""Key of the model's own losses among the numbers of tokens: token i + 1 at position i."""

NORM_SEQUENCES = 32
"""Of the first reading, of which the lengths of streams are kept; enough for their medians."""

GUESSED_L0 = 100
"""Active latents of a token that a plan reckons with: an upper bound for usual SAEs."""


class ReadStep(MapStep):
    name = READ

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config
        self.inputs = (TEXTS, *sae_inputs(config))

    def cost(self) -> Cost:
        config = self.config
        n = len(config.readings) * config.n_sequences
        tokens = float(n * config.corpus.context)
        forward = forward_cost(config.model, config.shape, config.corpus.context, 1, tokens)
        weights = sum(2.0 * width * config.model.d_model for width in config.widths)
        entries = tokens * sum(min(GUESSED_L0, width) for width in config.widths)
        return replace(
            forward,
            flops=forward.flops + weights * tokens,
            bytes_moved=forward.bytes_moved + 4.0 * weights * n,
            memory_bytes=forward.memory_bytes
            + 4.0 * weights
            + 2e6 * config.read.memory_mb
            + 4.0 * max(config.widths) * config.corpus.context,
            disk_bytes=BYTES_WRITTEN * entries + 40.0 * tokens * len(config.points),
            parallel=max(1, n // config.read.sequences_per_shard),
            note=f"one pass for all layers, at most {GUESSED_L0} active latents a token",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(
                f"{reading.key}-{start:06d}",
                {"reading": reading.key, "start": start, "stop": stop},
            )
            for reading in self.config.readings
            for start, stop in self._parts(run, reading)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        [reading] = [r for r in config.readings if r.key == shard.params["reading"]]
        model = load_model(run, config.model, context.device)
        saes = load_set(run, config, config.set_names[0], context.device)
        text = reading_text(run, config, reading)
        text.tokens.check_tokenizer(model.tokenizer)
        widths = {str(point): sae.d_sae for point, sae in saes.items()}
        columns = ColumnsWriter(context.folder, widths, config.read.memory_mb << 20)
        start, stop = shard.params["start"], shard.params["stop"]
        context_length = text.layout.context
        notes = _Notes(context_length)
        for q in range(start, stop):
            keeps_norms = reading == config.readings[0] and q < NORM_SEQUENCES
            streams = NORM_STREAMS if keeps_norms else ()
            reader = SequenceReader(model, saes, reading.ablation, config.seed, streams)
            found = reader.read(*text.sequence(q))
            for point, layer in found.layers.items():
                columns.add(str(point), layer.latents, q * context_length)
            notes.add(found)
            context.sink.progress(q + 1 - start, stop - start, "sequences")
        columns.close()
        notes.write(context.folder)

    def _parts(self, run: Run, reading: Reading) -> Iterator[tuple[int, int]]:
        n = len(reading_text(run, self.config, reading))
        size = self.config.read.sequences_per_shard
        for start in range(0, n, size):
            yield start, min(start + size, n)


def reading_text(run: Run, config: AnatomyConfig, reading: Reading) -> TextSlice:
    """The windows of a reading, and what stands in them."""

    def find() -> dict[Slice, TextSlice]:
        return text_slices(open_texts(run), config.split_of(""), config.n_sequences, config.slices)

    return run.cached("text slices", find)[reading.slice]


class _Notes:
    """Numbers of the tokens and of the sequences of a shard."""

    def __init__(self, context: int) -> None:
        self._context = context
        self._tokens: dict[str, list[Tensor]] = {}
        self._sequences: dict[str, list[Tensor]] = {}

    def add(self, found: SequenceReading) -> None:
        for point, layer in found.layers.items():
            moments = layer.tokens
            self._add_tokens(f"{point}/count", torch.from_numpy(moments.count).int())
            for name in ("mean", "squares"):
                self._add_tokens(f"{point}/{name}", torch.from_numpy(getattr(moments, name)))
            self._add_tokens(f"{point}/error", layer.square_error)
            for name, value in layer.sums.items():
                self._sequences.setdefault(f"{point}/{name}", []).append(value)
        for point, lengths in found.norms.items():
            self._add_tokens(f"{point}/norm", lengths)
        if found.losses is not None:
            self._add_tokens(LOSSES, found.losses)

    def _add_tokens(self, key: str, values: Tensor) -> None:
        padded = torch.zeros(self._context, dtype=values.dtype)
        padded[: len(values)] = values
        self._tokens.setdefault(key, []).append(padded)

    def write(self, folder: Path) -> None:
        for file, kept in ((TOKENS_FILE, self._tokens), (SEQUENCES_FILE, self._sequences)):
            write_tensors(folder / file, {key: torch.stack(rows) for key, rows in kept.items()})


def _shard_folders(run: Run, config: AnatomyConfig, reading: Reading) -> list[Path]:
    keys = [shard.key for shard in ReadStep(config).shards(run)]
    own = [key for key in keys if key.rpartition("-")[0] == reading.key]
    return [run.shard_folder(READ, key) for key in own]


def read_columns(
    run: Run, config: AnatomyConfig, reading: Reading, point: HookPoint
) -> LatentColumns:
    """The active latents of a hook point in a reading."""
    folders = _shard_folders(run, config, reading)
    return LatentColumns(
        [part for folder in folders for part in sorted((folder / str(point)).iterdir())]
    )


def read_notes(
    run: Run, config: AnatomyConfig, reading: Reading, file: str, prefix: str
) -> dict[str, Tensor]:
    """Numbers of a file whose keys begin with `prefix`, which is left out, over all sequences of
    a reading: [q, p] of tokens, [q, ...] of sequences.
    """
    parts: dict[str, list[Tensor]] = {}
    for folder in _shard_folders(run, config, reading):
        # Only what is asked for: a file holds the numbers of every layer.
        with open_tensors(folder / file) as tensors:
            for key in sorted(tensors.keys()):
                if key.startswith(prefix):
                    parts.setdefault(key.removeprefix(prefix), []).append(tensors.get_tensor(key))
    return {key: torch.cat(values) for key, values in parts.items()}
