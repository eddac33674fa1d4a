"""SAEs -> how good they are on held-out text (`quality/`), and what their latents are about.

quality/shards/<hook point>/quality.json            numbers of each SAE, with intervals
quality/shards/<hook point>/<key>.safetensors       density and mean square of each latent
quality/shards/<hook point>/cards.json              identity cards of prominent latents
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.storage import write_json
from fluoroscope.core.tensors import write_tensors
from fluoroscope.data.token_store import TokenStore, WindowRange, Windows
from fluoroscope.features.examples import (
    LatentBatch,
    logit_effects,
    prominent_latents,
    top_contexts,
)
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.evaluation import Window, evaluate_reconstruction, evaluate_recovery
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.steps.evaluation_config import EvaluationConfig
from fluoroscope.steps.extract import TOKENS
from fluoroscope.steps.models import ModelConfig, forward_cost, load_model
from fluoroscope.steps.train_saes import SAES_STEP, SAEPlan, sae_folder

QUALITY = "quality"


class _Batch(NamedTuple):
    windows: Windows
    encoded: Tensor
    activation: Tensor


class EvaluateSAEsStep(MapStep):
    """One shard a hook point; the test split is read by nothing before this step."""

    name = QUALITY
    inputs = (TOKENS, SAES_STEP)

    def __init__(
        self,
        model: ModelConfig,
        shape: ModelShape,
        groups: Mapping[str, Sequence[SAEPlan]],
        extract: ExtractConfig,
        evaluation: EvaluationConfig,
        context: int,
        seed: int,
    ) -> None:
        self.model, self.shape, self.extract, self.evaluation = model, shape, extract, evaluation
        self.context, self.seed = context, seed
        self._plans: dict[str, list[tuple[str, SAEPlan]]] = {}
        for group, plans in groups.items():
            for plan in plans:
                self._plans.setdefault(plan.hook_point, []).append((group, plan))

    def cost(self) -> Cost:
        n_saes = sum(len(plans) for plans in self._plans.values())
        widest = max(p.settings["d_sae"] for plans in self._plans.values() for _, p in plans)
        n_tokens = self.evaluation.n_tokens
        # Means, rows and examples need a pass each, cross-entropies four of each SAE.
        passes = 3 * len(self._plans) + 4 * n_saes
        forward = forward_cost(
            self.model, self.shape, self.context, self.extract.tile_windows, passes * n_tokens
        )
        tile = self.extract.tile_windows * self.context
        return replace(
            forward,
            flops=forward.flops + 3.0 * n_saes * 2 * widest * self.model.d_model * n_tokens,
            memory_bytes=forward.memory_bytes + 8.0 * widest * (self.model.d_model + tile),
            # Two numbers a latent, and about 2.5 kB a context of a card.
            disk_bytes=n_saes
            * (16.0 * widest + 2500.0 * self.evaluation.cards * self.evaluation.contexts),
            parallel=len(self._plans),
            note="forward passes over the test split",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(point) for point in self._plans]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.model, context.device)
        point = HookPoint(shard.key)
        quality: dict[str, Any] = {}
        cards: dict[str, Any] = {}
        plans = self._plans[shard.key]
        mean = self._mean(run, model, point)
        for i, (group, plan) in enumerate(plans):
            expect = {"model": model.identity.to_json(), "hook_point": shard.key}
            sae = load_sae(sae_folder(run, group, plan.key), device=context.device, expect=expect)
            quality[plan.key], latents = self._quality(run, model, point, sae, mean)
            write_tensors(context.folder / f"{plan.key}.safetensors", latents)
            chosen = prominent_latents(
                latents["mean_square"], latents["density"], self.evaluation.cards
            )
            cards[plan.key] = self._cards(run, model, point, sae, chosen)
            context.sink.progress(i + 1, len(plans), "SAEs")
        write_json(context.folder / "quality.json", without_nan(quality))
        write_json(context.folder / "cards.json", cards)

    def _batches(self, run: Run, model: LanguageModel, point: HookPoint) -> Iterator[_Batch]:
        for windows in self._windows(run):
            cache = capture(model, windows.tokens, [point], windows.attention_mask)
            yield _Batch(windows, self._encoded(windows), cache[point])

    def _windows(self, run: Run) -> Iterator[Windows]:
        tokens = run.cached(TOKENS, lambda: TokenStore(run.step_folder(TOKENS)))
        stop = tokens.n_windows_for("test", self.evaluation.n_tokens)
        for tile in WindowRange("test", 0, stop).tiles(self.extract.tile_windows):
            yield tokens.windows("test", tile.start, tile.stop)

    def _encoded(self, windows: Windows) -> Tensor:
        kept = windows.document >= 0
        return kept & ~windows.is_start if self.extract.exclude_bos else kept

    def _mean(self, run: Run, model: LanguageModel, point: HookPoint) -> Tensor:
        total, n_rows = torch.zeros(model.d_model, dtype=torch.float64), 0
        for batch in self._batches(run, model, point):
            rows = batch.activation[batch.encoded.to(batch.activation.device)]
            total += rows.double().sum(dim=0).cpu()
            n_rows += len(rows)
        return (total / max(1, n_rows)).float()

    def _quality(
        self,
        run: Run,
        model: LanguageModel,
        point: HookPoint,
        sae: SparseAutoencoder,
        mean: Tensor,
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        rows = (
            (b.activation[b.encoded.to(b.activation.device)], b.windows.document[b.encoded])
            for b in self._batches(run, model, point)
        )
        found = evaluate_reconstruction(sae, rows, mean, self.seed)
        numbers: dict[str, Any] = {
            "fvu": list(found.fvu),
            "l0": list(found.l0),
            "dead_fraction": found.dead_fraction,
            "n_test_tokens": found.n_tokens,
            "n_test_documents": found.n_documents,
        }
        if model.family.kind == "decoder":
            windows = (
                Window(w.tokens, w.document, self._encoded(w), w.attention_mask)
                for w in self._windows(run)
            )
            recovery = evaluate_recovery(model, point, sae, windows, mean, self.seed)
            numbers |= recovery._asdict()
        return numbers, {"density": found.density, "mean_square": found.mean_square}

    def _cards(
        self,
        run: Run,
        model: LanguageModel,
        point: HookPoint,
        sae: SparseAutoencoder,
        chosen: Sequence[int],
    ) -> list[dict[str, Any]]:  # Any: JSON values.
        if not chosen:
            return []
        batches = (
            LatentBatch(b.windows.tokens, b.windows.document, b.activation, b.encoded)
            for b in self._batches(run, model, point)
        )
        contexts = top_contexts(sae, chosen, batches, self.evaluation.contexts)
        cards: list[dict[str, Any]] = [
            {"latent": latent, "contexts": [c._asdict() for c in contexts[latent]]}
            for latent in chosen
        ]
        if model.family.kind == "decoder":
            directions = sae.W_dec.detach()[list(chosen)]
            for card, effects in zip(cards, logit_effects(model, directions), strict=True):
                card |= effects._asdict()
        return cards
