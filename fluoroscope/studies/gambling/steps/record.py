"""Decisions -> the activations that they were made from (`record/`).

record/states.parquet                          a row a decision: who, when, what was done, `row`
record/prompts.parquet                         row -> the prompt; equal prompts are read once
record/shards/<k>/activations.safetensors      hook point -> [rows, d_model], at the last token
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.activations.last_positions import last_activations
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.shape import BYTES
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.states import decision_states
from fluoroscope.studies.gambling.steps.play import (
    DECISIONS_A_GAME,
    PLAY,
    model_player,
    read_attempts,
    read_games,
)

RECORD = "record"
STATES, PROMPTS, ACTIVATIONS = "states.parquet", "prompts.parquet", "activations.safetensors"


class RecordStep(MapStep):
    """All layers in one pass; one shard for some hundred prompts."""

    name = RECORD
    inputs = (PLAY,)

    def __init__(self, config: GamblingConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        config, shape = self.config, self.config.shape
        n_games = config.play.repetitions * len(config.table.conditions)
        n = n_games * (DECISIONS_A_GAME if config.record.decisions == "all" else 1.0)
        length = config.table.prompt_tokens
        flops = shape.forward_flops_per_token(length) * n * length
        is_half = config.model.dtype != "float32"
        weights = float(shape.n_params * BYTES[config.model.dtype])
        n_tiles = n * length / config.record.tile_tokens
        width = len(config.subject.saes) * shape.d_model * BYTES[config.model.dtype]
        return Cost(
            flops=0.0 if is_half else flops,
            half_flops=flops if is_half else 0.0,
            bytes_moved=weights * n_tiles,
            overhead_s=1e-3 * shape.n_layers * n_tiles,
            memory_bytes=weights + config.record.tile_tokens * 4.0 * 24 * shape.d_model + 0.3e9,
            disk_bytes=n * (width + 1e3),
            parallel=max(1, int(n / config.record.prompts_per_shard)),
            note="equal prompts are read once",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        n, size = len(self._states(run)[1]), self.config.record.prompts_per_shard
        return [
            Shard(f"{start:07d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        prompts = self._states(run)[1]["prompt"][shard.params["from"] : shard.params["to"]]
        player = model_player(run, self.config, context.device)
        found = last_activations(
            player.model,
            [player.prompt(text) for text in prompts.to_list()],
            [HookPoint(point) for point in self.config.hook_points],
            self.config.record.tile_tokens,
            lambda done, total: context.sink.progress(done, total, "prompts"),
        )
        tensors = {str(point): values for point, values in found.items()}
        about = {"model": player.model.identity.to_json(), "position": "last token of the prompt"}
        write_tensors(context.folder / ACTIVATIONS, tensors, about)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        states, prompts = self._states(run)
        write_parquet(folder / STATES, states)
        write_parquet(folder / PROMPTS, prompts)

    def _states(self, run: Run) -> tuple[pl.DataFrame, pl.DataFrame]:
        only_last = self.config.record.decisions == "last"
        return run.cached(
            (RECORD, "states"),
            lambda: decision_states(read_attempts(run), read_games(run), only_last=only_last),
        )


def read_states(run: Run) -> pl.DataFrame:
    """See `states.decision_states`."""
    return pl.read_parquet(run.step_folder(RECORD) / STATES)


def read_prompts(run: Run) -> list[str]:
    """Row -> prompt."""
    return pl.read_parquet(run.step_folder(RECORD) / PROMPTS)["prompt"].to_list()


def read_activations(run: Run, hook_point: str) -> Float[Tensor, "rows d_model"]:
    """At the last token of every prompt."""
    folder = run.step_folder(RECORD) / "shards"
    # By name: what else lies in the folder is none of its shards.
    keys = [shard.key for shard in RecordStep(run.config).shards(run)]
    parts = [read_tensors(folder / key / ACTIVATIONS)[hook_point] for key in keys]
    return torch.cat(parts) if parts else torch.zeros(0, 0)
