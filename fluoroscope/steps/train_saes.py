"""Activations -> SAEs: every variant of a group of hook points in one loop (`saes/`).

saes/shards/<group>/<variant key>/{best,last}/     SAE folders
saes/shards/<group>/training.json                  what the training ended with
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.sources import ActivationSource, ModelSource, StoreSource
from fluoroscope.activations.store import ActivationStore
from fluoroscope.activations.stream import ActivationStream, rows_in_order
from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import MismatchError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import State
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.token_store import TokenStore
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, LoopStep, Shard, ShardContext
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.formats.native import save_sae
from fluoroscope.sae.training import Rows, SAETrainer, SAEVariant
from fluoroscope.sae.training_config import TrainingConfig
from fluoroscope.steps.extract import ACTIVATIONS, TOKENS
from fluoroscope.steps.models import ModelConfig, forward_cost, load_model

BEST, LAST = "best", "last"
"""Folders of the weights with the best validation loss, and of those after the last step."""

SAES_STEP = "saes"
TRAINING_RECORD = "training.json"


_STEP_OVERHEAD_S = 5e-3
"""What a step of one SAE costs beside its products: some hundred small operations, measured on
a CPU at d_sae=512; a GPU launches them in a similar time."""


class SAEPlan(Config):
    """One SAE of a run, in JSON values."""

    key: str
    hook_point: str
    architecture: str
    settings: dict[str, Any]  # Any: the architecture's own config, in JSON values.
    seed: NonNegativeInt

    def variant(self) -> SAEVariant:
        config = build(SAES.load(self.architecture).config_type, self.settings)
        point = HookPoint(self.hook_point)
        return SAEVariant(self.key, point, self.architecture, config, self.seed)


class TrainSAEsStep(LoopStep):
    """SAEs of each group of hook points; a group is one loop, and loops run side by side."""

    name = SAES_STEP

    def __init__(
        self,
        model: ModelConfig,
        shape: ModelShape,
        groups: Mapping[str, Sequence[SAEPlan]],
        training: TrainingConfig,
        extract: ExtractConfig,
        context: int,
        n_tokens: int,
        seed: int,
        from_store: bool,
    ) -> None:
        self.shape, self.context = shape, context
        self.model, self.groups, self.training, self.extract = model, groups, training, extract
        self.n_tokens, self.seed, self.from_store = n_tokens, seed, from_store
        self.inputs = (TOKENS, ACTIVATIONS) if from_store else (TOKENS,)

    def cost(self) -> Cost:
        d_model, n_tokens = self.model.d_model, self.n_tokens
        sizes = [
            (len(plans), max(p.settings["d_sae"] for p in plans)) for plans in self.groups.values()
        ]
        n_saes = sum(n for n, _ in sizes)
        weights = [n * 2 * d_sae * d_model for n, d_sae in sizes]
        points = max(len({p.hook_point for p in plans}) for plans in self.groups.values())
        rows = min(self.training.buffer_rows, n_tokens) + 2 * _sample_rows(d_model)
        batch = self.training.batch_size * max(d_sae for _, d_sae in sizes)
        forward = self._forward_cost()
        return replace(
            forward,
            # The encoder's product; decoding and every gradient are sparse (a quarter more).
            flops=forward.flops + 1.25 * sum(weights) * n_tokens,
            # Adam reads and writes weights, gradients and two moments once a step.
            bytes_moved=forward.bytes_moved + 28.0 * sum(weights) * self._n_iterations,
            overhead_s=forward.overhead_s + _STEP_OVERHEAD_S * self._n_iterations * n_saes,
            # Weights, gradient, two moments, the best weights, and a batch of pre-activations.
            memory_bytes=forward.memory_bytes
            + 4.0 * (5 * max(weights) + points * rows * d_model + 3 * batch),
            # Best and last weights, and a checkpoint of weights, moments and best while it runs.
            disk_bytes=4.0 * 6 * sum(weights),
            parallel=len(self.groups),
            note="encoder product and sparse gradients"
            if self.from_store
            else "with the model's forward passes, once for each loop",
        )

    def _forward_cost(self) -> Cost:
        if self.from_store:
            return Cost()
        n_tokens = self.n_tokens * len(self.groups)
        tile_windows = self.extract.tile_windows
        return forward_cost(self.model, self.shape, self.context, tile_windows, n_tokens)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(key) for key in self.groups]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> "_TrainingLoop":
        plans = self.groups[shard.key]
        points = sorted({HookPoint(plan.hook_point) for plan in plans})
        sources = {split: self._source(run, split, context) for split in ("train", "validation")}
        batch_size = self.training.batch_size
        stream = ActivationStream(
            sources["train"],
            points,
            batch_size=batch_size,
            seed=self.seed,
            n_samples=self._n_iterations * batch_size,
            buffer_rows=self.training.buffer_rows,
        )
        rows = _first_rows(sources, points, _sample_rows(self.model.d_model))
        variants = [plan.variant() for plan in plans]
        trainer = SAETrainer(
            variants, stream, rows, self.training, self._n_iterations, context.device
        )
        provenance = {
            "model": self._model_identity(run),
            "tokens_sha256": TokenStore(run.step_folder(TOKENS)).sha256,
            "n_tokens": self._n_iterations * batch_size,
            "training": self.training.model_dump(mode="json"),
            "extract": self.extract.model_dump(mode="json"),
            "stream_seed": self.seed,
        }
        return _TrainingLoop(trainer, plans, provenance)

    @property
    def _n_iterations(self) -> int:
        # Whole batches: the last one may go a little beyond n_tokens.
        return math.ceil(self.n_tokens / self.training.batch_size)

    def _source(self, run: Run, split: Split, context: ShardContext) -> ActivationSource:
        if self.from_store:
            store = run.cached(ACTIVATIONS, lambda: ActivationStore(run.step_folder(ACTIVATIONS)))
            return StoreSource(store, split)
        model = load_model(run, self.model, context.device)
        tokens = TokenStore(run.step_folder(TOKENS))
        limit = tokens.n_windows_for(split, self.n_tokens)
        return ModelSource(model, tokens, split, config=self.extract, n_windows=limit)

    def _model_identity(self, run: Run) -> dict[str, Any]:  # Any: JSON values.
        if self.from_store:
            return ActivationStore(run.step_folder(ACTIVATIONS)).manifest["model"]
        return load_model(run, self.model, "cpu").identity.to_json()


class _TrainingLoop:
    """A trainer as a loop of a run."""

    def __init__(
        self,
        trainer: SAETrainer,
        plans: Sequence[SAEPlan],
        provenance: dict[str, Any],  # Any: JSON values.
    ) -> None:
        self.n_iterations = trainer.n_iterations
        self._trainer, self._plans, self._provenance = trainer, plans, provenance

    def advance(self, iteration: int, sink: Sink) -> None:
        self._trainer.advance(iteration, sink)

    def state(self) -> State:
        return {"trainer": self._trainer.state(), "model": self._provenance["model"]}

    def load(self, state: State) -> None:
        # A stream takes its rows from the model itself, whose folder may hold another by now.
        if state["model"] != self._provenance["model"]:
            raise MismatchError(
                f"The training began on activations of the model {state['model']}, and would go on "
                f"with those of {self._provenance['model']}. Restore that model, or start anew "
                "under another --name."
            )
        self._trainer.load(state["trainer"])

    def finish(self, folder: Path, sink: Sink) -> None:
        results = dict(self._trainer.results())
        record: dict[str, Any] = {"curves": self._trainer.curves, "saes": {}}
        for plan in self._plans:
            result = results[plan.key]
            point = HookPoint(plan.hook_point)
            provenance = {**self._provenance, "seed": plan.seed}
            save_sae(result.best, folder / plan.key / BEST, point, provenance)
            save_sae(result.last, folder / plan.key / LAST, point, provenance)
            record["saes"][plan.key] = {
                "best_step": result.best_step,
                "best_loss": result.best_loss,
                "n_samples": result.n_samples,
            }
        write_json(folder / TRAINING_RECORD, record)


def sae_folder(run: Run, group: str, key: str) -> Path:
    """Where the SAE with the best validation loss was saved."""
    return run.shard_folder(SAES_STEP, group) / key / BEST


def training_record(run: Run, group: str) -> dict[str, Any]:  # Any: JSON values.
    """`curves`: SAE key -> `step`, `loss`, `fvu`, `l0`, `dead_fraction` -> values; and `saes`:
    SAE key -> `best_step`, `best_loss`, `n_samples`.
    """
    return read_json(run.shard_folder(SAES_STEP, group) / TRAINING_RECORD)


def _sample_rows(d_model: int) -> int:
    # Enough rows to place a threshold and a median; 64 MiB of them at most.
    return int(min(16384, max(2048, 2**24 // d_model)))


def _first_rows(
    sources: Mapping[str, ActivationSource], points: Sequence[HookPoint], n_rows: int
) -> dict[HookPoint, Rows]:
    gathered = {}
    for split in ("train", "validation"):
        batches = list(rows_in_order(sources[split], points, 4096, n_rows))
        gathered[split] = {p: torch.cat([batch[p] for batch in batches])[:n_rows] for p in points}
    return {p: Rows(gathered["train"][p], gathered["validation"][p]) for p in points}
