"""Answers -> what the model shows while it gives them (`read/`).

read/answers.parquet               a row an answer that could be read: `row`, id, group, label
read/unread.parquet                the others, with the reason
read/shards/<k>/readings.safetensors   of some of them: token scores, states, active latents
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.data.answers.record import AnswerRecord
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.shape import BYTES
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.sparse_kernels import SparseLatents
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import load_layers, sae_choices, sae_inputs
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.signals.reading import PLACES, Readings, read_answers
from fluoroscope.studies.hallucination.signals.tokens import AnswerTokens, answer_tokens
from fluoroscope.studies.hallucination.steps.answers import (
    ANSWERS,
    PROMPT_TOKENS,
    read_answer_records,
)

READ = "read"
READABLE, UNREAD, READINGS = "answers.parquet", "unread.parquet", "readings.safetensors"
MAX_UNREAD = 0.2
"""Share of answers that cannot be read above which nothing is said of the rest."""


class ReadStep(MapStep):
    """Shards of some answers; all layers in one pass."""

    name = READ

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), ANSWERS)

    def cost(self) -> Cost:
        config, shape = self.config, self.config.shape
        n = config.size.answers
        length = PROMPT_TOKENS + config.answers.max_tokens
        d_sae = sum(config.widths)
        encoding = 2.0 * shape.d_model * d_sae * (config.answers.max_tokens + 1) * n
        flops = shape.forward_flops_per_token(length) * n * length
        is_half = config.model.dtype != "float32"
        weights = float(shape.n_params * BYTES[config.model.dtype])
        n_tiles = n * length / config.read.tile_tokens
        return Cost(
            flops=encoding + (0.0 if is_half else flops),
            half_flops=flops if is_half else 0.0,
            bytes_moved=weights * n_tiles,
            overhead_s=1e-3 * (shape.n_layers + len(config.points)) * n_tiles,
            memory_bytes=weights
            + 8.0 * config.read.tile_tokens * shape.vocab_size
            + 4.0 * shape.d_model * d_sae
            + 0.3e9,
            disk_bytes=n * len(config.points) * (len(PLACES) * shape.d_model * 4.0 + 12e3),
            parallel=max(1, n // config.read.answers_per_shard),
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        n, size = len(read_answer_records(run)), self.config.read.answers_per_shard
        return [
            Shard(f"{start:06d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        records = read_answer_records(run)[shard.params["from"] : shard.params["to"]]
        model = load_model(run, self.config.model, context.device)
        answers: list[AnswerTokens] = []
        rows, unread = [], []
        for record in records:
            try:
                tokens = answer_tokens(model, record.prompt, record.completion, record.answer_span)
            except CorpusError as error:
                unread.append({"id": record.id, "reason": str(error)})
                continue
            answers.append(tokens)
            rows.append(_row(record, tokens))
        loaded = load_layers(run, self.config, context.device, model.identity)
        saes = {HookPoint(point): sae for point, sae in loaded.items()}
        found = read_answers(
            model,
            answers,
            saes,
            self.config.read.tile_tokens,
            lambda done, total: context.sink.progress(done, total, "answers"),
        )
        about = {
            "model": model.identity.to_json(),
            "saes": [sae.provenance() for sae in sae_choices(run, self.config)],
        }
        write_tensors(context.folder / READINGS, packed(found), about)
        write_parquet(context.folder / READABLE, pl.DataFrame(rows, schema=_COLUMNS))
        schema = {"id": pl.String, "reason": pl.String}
        write_parquet(context.folder / UNREAD, pl.DataFrame(unread, schema=schema))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        places = [folder / "shards" / shard.key for shard in self.shards(run)]
        unread = pl.concat([pl.read_parquet(place / UNREAD) for place in places])
        answers = pl.concat([pl.read_parquet(place / READABLE) for place in places])
        if len(unread) > MAX_UNREAD * (len(unread) + len(answers)):
            raise CorpusError(
                f"{len(unread)} of {len(unread) + len(answers)} answers cannot be read. The first, "
                f"{unread['id'][0]}: {unread['reason'][0]}"
            )
        write_parquet(folder / UNREAD, unread)
        write_parquet(folder / READABLE, answers.with_row_index("row"))
        sink.message(f"{len(answers)} answers read, {len(unread)} could not be.")


_COLUMNS = {
    "id": pl.String,
    "group_id": pl.String,
    "label": pl.Int8,
    "category": pl.String,
    "n_prompt": pl.Int32,
    "n_tokens": pl.Int32,
    "exact": pl.Int32,
}


def _row(record: AnswerRecord, tokens: AnswerTokens) -> dict[str, str | int]:
    return {
        "id": record.id,
        "group_id": record.group_id,
        "label": record.label,
        "category": record.category,
        "n_prompt": tokens.n_prompt,
        "n_tokens": len(tokens.tokens) - tokens.n_prompt,
        "exact": tokens.exact - tokens.n_prompt,
    }


def packed(readings: Readings) -> dict[str, Tensor]:
    """As tensors by name; `unpacked` is the way back."""
    found = {
        "offsets": readings.offsets,
        "logprobs": readings.logprobs,
        "entropies": readings.entropies,
    }
    for point, states in readings.states.items():
        found[f"{point}/states"] = states
    for point, latents in readings.latents.items():
        found[f"{point}/offsets"] = latents.offsets
        found[f"{point}/indices"] = latents.indices
        found[f"{point}/values"] = latents.values
        found[f"{point}/d_sae"] = torch.tensor(latents.d_sae)
    for point, rows in readings.unexplained.items():
        found[f"{point}/unexplained"] = rows
    return found


def unpacked(tensors: dict[str, Tensor]) -> Readings:
    points = [HookPoint(name.partition("/")[0]) for name in tensors if name.endswith("/states")]
    return Readings(
        offsets=tensors["offsets"],
        logprobs=tensors["logprobs"],
        entropies=tensors["entropies"],
        states={point: tensors[f"{point}/states"] for point in sorted(points)},
        latents={
            point: SparseLatents(
                tensors[f"{point}/offsets"],
                tensors[f"{point}/indices"],
                tensors[f"{point}/values"],
                int(tensors[f"{point}/d_sae"]),
            )
            for point in sorted(points)
        },
        unexplained={
            point: tensors[f"{point}/unexplained"]
            for point in sorted(points)
            if f"{point}/unexplained" in tensors
        },
    )


def read_shards(run: Run) -> Iterator[tuple[pl.DataFrame, Readings]]:
    """The answers of each shard and what was read of them, one shard after the other."""
    for place in sorted((run.step_folder(READ) / "shards").iterdir()):
        yield pl.read_parquet(place / READABLE), unpacked(read_tensors(place / READINGS))
