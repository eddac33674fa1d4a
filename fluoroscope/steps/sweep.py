"""A grid of edits x prompts x trials -> the texts (`sweep/`).

sweep/shards/<prompt>-<part>/cells.parquet   the texts of some cells of one prompt
sweep/cells.parquet                          all of them

A shard is some cells of one prompt with all of their trials: its texts are decoded together, the
prompt is read once for all of them, and each cell's last position once for all of its trials.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.interventions.positions import Positions
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.models.generation import Generation, Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import (
    ReconstructionOnly,
    ScaleLatent,
    SetLatent,
    SetRandomLatent,
)
from fluoroscope.steps.models import ModelConfig, load_model
from fluoroscope.steps.sae_sources import load_saes
from fluoroscope.steps.sweep_config import Cell, Prompt, SweepConfig
from fluoroscope.steps.sweep_cost import sweep_cost

SWEEP = "sweep"
DENSITY_PROMPTS = 32
"""Prompts on which the density of latents is measured."""

CELLS = "cells.parquet"
SCHEMA = {
    "prompt": pl.String,
    "cell": pl.Int64,
    "kind": pl.String,
    "condition": pl.String,
    "hook_point": pl.String,
    "latent": pl.Int64,
    "value": pl.Float64,
    "trial": pl.Int64,
    "seed": pl.Int64,
    "text": pl.String,
    "finish": pl.String,
    "n_tokens": pl.Int64,
    "n_edits": pl.Int64,
}


class SweepStep(MapStep):
    """One shard for some cells of a prompt."""

    name = SWEEP

    def __init__(self, model: ModelConfig, shape: ModelShape, sweep: SweepConfig) -> None:
        self.model, self.shape, self.sweep = model, shape, sweep
        self._cells = sweep.cells()
        self._kinds = {condition.name: condition.kind for condition in sweep.conditions}

    def cost(self) -> Cost:
        return sweep_cost(self.model, self.shape, self.sweep, len(self.parts()))

    def shards(self, run: Run) -> Sequence[Shard]:
        width = len(str(len(self.sweep.prompts) - 1))
        return [
            Shard(f"{prompt:0{width}d}-{start:06d}", {"prompt": prompt, "from": start, "to": stop})
            for prompt in range(len(self.sweep.prompts))
            for start, stop in self.parts()
        ]

    def parts(self) -> list[tuple[int, int]]:
        """Ranges of cells whose texts fill a tile."""
        n, size = len(self._cells), max(1, self.sweep.texts.tile // self.sweep.texts.trials)
        return [(start, min(start + size, n)) for start in range(0, n, size)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.model, context.device)
        saes = self._saes(run, model, context.device)
        cells = self._cells[shard.params["from"] : shard.params["to"]]
        prompt = self.sweep.prompts[shard.params["prompt"]]
        pairs = [(cell, trial) for cell in cells for trial in range(self.sweep.texts.trials)]
        requests = [self._request(prompt, trial) for _, trial in pairs]
        densities = self._densities(run, model, saes)
        edits = {cell.number: self._edits(cell, saes, densities) for cell in cells}
        done = 0

        def count(_: Generation) -> None:
            nonlocal done
            done += 1
            context.sink.progress(done, len(requests), "texts")

        positions = Positions.parse(self.sweep.positions)
        with row_edits(model, [edits[cell.number] for cell, _ in pairs], positions):
            found = generate(
                model,
                requests,
                sampling=Sampling(**self.sweep.texts.sampling.model_dump()),
                max_rows=self.sweep.texts.tile,
                on_finish=count,
            )
        rows = [
            _row(prompt.id, cell, trial, request.seed, one)
            for (cell, trial), request, one in zip(pairs, requests, found, strict=True)
        ]
        frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        write_parquet(context.folder / CELLS, frame)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        files = [folder / "shards" / shard.key / CELLS for shard in self.shards(run)]
        frame = pl.concat([pl.read_parquet(file) for file in files])
        write_parquet(folder / CELLS, frame)

    def _saes(self, run: Run, model: LanguageModel, device: str) -> dict[str, SparseAutoencoder]:
        def load() -> dict[str, SparseAutoencoder]:
            return load_saes(self.sweep.saes, device=device, model=model.identity)

        return run.cached((SWEEP, "saes", device), load)

    def _request(self, prompt: Prompt, trial: int) -> Request:
        return Request(
            prompt=_given(prompt),
            # The same luck in every cell of a prompt, whatever is edited.
            seed=derive_seed(self.sweep.seed, "sweep", prompt.id, trial),
            max_tokens=self.sweep.texts.max_tokens,
            stop=tuple(self.sweep.texts.stop),
            may_echo=self.sweep.texts.may_echo,
        )

    def _densities(
        self, run: Run, model: LanguageModel, saes: Mapping[str, SparseAutoencoder]
    ) -> Mapping[str, Float[Tensor, " s"]]:
        """How often each latent is active on the prompts: what random latents are matched by."""
        if not self.sweep.controls.n_random:
            return {}
        prompts = [_given(prompt) for prompt in self.sweep.prompts[:DENSITY_PROMPTS]]
        return run.cached(
            (SWEEP, "densities", str(model.device)), lambda: _densities(model, saes, prompts)
        )

    def _edits(
        self,
        cell: Cell,
        saes: Mapping[str, SparseAutoencoder],
        densities: Mapping[str, Float[Tensor, " s"]],
    ) -> EditSet:
        if cell.hook_point is None:
            return {}
        point, sae = HookPoint(cell.hook_point), saes[cell.hook_point]
        if cell.latent is None or cell.value is None:
            return {point: ReconstructionOnly(sae)}
        make = ScaleLatent if self._kinds[cell.condition] == "scale" else SetLatent
        edit = make(sae, cell.latent, cell.value)
        if cell.kind == "random latent":
            edit = SetRandomLatent(edit, self.sweep.seed, densities[cell.hook_point])
        return {point: edit}


@torch.no_grad()
def _densities(
    model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    prompts: Sequence[str | tuple[int, ...]],
) -> dict[str, Float[Tensor, " s"]]:
    counts = {name: torch.zeros(sae.d_sae, device=model.device) for name, sae in saes.items()}
    n = 0
    for prompt in prompts:
        tokens = torch.tensor([prompt_tokens(model, prompt)], device=model.device)
        cache = capture(model, tokens, list(saes))
        n += tokens.shape[1]
        for name, sae in saes.items():
            counts[name] += sae.sparse_encode(cache[name][0].to(sae.W_dec)).count()
    return {name: count / n for name, count in counts.items()}


def _given(prompt: Prompt) -> str | tuple[int, ...]:
    return prompt.text if prompt.tokens is None else tuple(prompt.tokens)


def read_cells(run: Run) -> pl.DataFrame:
    """All texts of a sweep, in the order of prompts, cells and trials."""
    return pl.read_parquet(run.step_folder(SWEEP) / CELLS)


def _row(prompt: str, cell: Cell, trial: int, seed: int, one: Generation) -> tuple[object, ...]:
    return (
        prompt,
        cell.number,
        cell.kind,
        cell.condition,
        cell.hook_point,
        cell.latent,
        cell.value,
        trial,
        seed,
        one.text,
        one.finish,
        len(one.tokens),
        one.n_edits,
    )
