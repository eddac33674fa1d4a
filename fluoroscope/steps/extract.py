"""Text -> windows of tokens (`tokens/`), and windows -> activations (`activations/`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.store import (
    ActivationStore,
    estimate_bytes,
    finish_store,
    write_activation_shard,
)
from fluoroscope.core.sink import Sink
from fluoroscope.data.corpora import finish_token_store, token_shards, write_token_shard
from fluoroscope.data.corpus_config import GENERATED, MODEL_SOURCE, CorpusConfig, Split
from fluoroscope.data.documents import corpus_fingerprint
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import ModelConfig, forward_cost, load_model

TOKENS, ACTIVATIONS = "tokens", "activations"

WINDOWS_PER_SHARD = 1024
"""Part of WHAT: shards are the same whoever works on them."""


def text_sources(model: ModelConfig, corpus: CorpusConfig) -> Mapping[str, str]:
    """What `Study.sources` answers for a model that reads a corpus."""
    text = corpus_fingerprint(corpus)
    found = {"model": model_fingerprint(model.name, model.revision)}
    return found | ({"corpus": text} if text is not None else {})


class TokeniseStep(MapStep):
    """A corpus as packed windows of tokens, split by document."""

    name = TOKENS

    def __init__(self, model: ModelConfig, corpus: CorpusConfig, n_tokens: int) -> None:
        self.model, self.corpus, self.n_tokens = model, corpus, n_tokens

    def cost(self) -> Cost:
        # A token is held as its id, document, position (4 bytes each) and a start flag; a window
        # of a single document is mostly padding.
        places = self.n_tokens / (1 - self.corpus.held_out) * (1 if self.corpus.pack else 5)
        # A fast tokenizer makes about a million tokens a second; making texts takes longer.
        seconds = (6e-6 if self.corpus.source in GENERATED else 1e-6) * self.n_tokens
        return Cost(
            overhead_s=seconds,
            memory_bytes=0.3e9,
            disk_bytes=13.0 * places,
            note="at most n_tokens are read",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(s.key, {"start": s.start}) for s in token_shards(self.corpus, self.n_tokens)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.model, context.device)
        [own] = [s for s in token_shards(self.corpus, self.n_tokens) if s.key == shard.key]
        is_sampled = self.corpus.source == MODEL_SOURCE
        write_token_shard(
            self.corpus,
            own,
            model.tokenizer,
            context.folder,
            n_tokens=self.n_tokens,
            network=model.network if is_sampled else None,
            sink=context.sink,
        )

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        finish_token_store(folder, self.n_tokens, sink)


class ExtractStep(MapStep):
    """The activations of all hook points in one pass, as an `ActivationStore`."""

    name = ACTIVATIONS
    inputs = (TOKENS,)

    def __init__(
        self,
        model: ModelConfig,
        shape: ModelShape,
        points: Sequence[HookPoint],
        extract: ExtractConfig,
        context: int,
        n_tokens: dict[Split, int],
    ) -> None:
        """`n_tokens` of each split are kept at most; a split that is not named is left out."""
        self.model, self.shape, self.points, self.extract = model, shape, points, extract
        self.context, self.n_tokens = context, n_tokens

    def cost(self) -> Cost:
        rows = sum(self.n_tokens.values())
        width = len(self.points) * self.model.d_model
        forward = forward_cost(
            self.model, self.shape, self.context, self.extract.tile_windows, rows
        )
        kept = 4.0 * self.extract.tile_windows * self.context * 2 * width
        return replace(
            forward,
            memory_bytes=forward.memory_bytes + kept,
            disk_bytes=float(
                estimate_bytes(rows, len(self.points), self.model.d_model, self.extract.dtype)
            ),
            parallel=max(1, math.ceil(rows / (WINDOWS_PER_SHARD * self.context))),
            note="activations=stream keeps nothing on disk"
            + (", extract.dtype=bfloat16 half" if self.extract.dtype == "float32" else ""),
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        tokens = TokenStore(run.step_folder(TOKENS))
        ranges = [
            window_range
            for split, limit in sorted(self.n_tokens.items())
            for window_range in tokens.ranges(
                split, WINDOWS_PER_SHARD, tokens.n_windows_for(split, limit)
            )
        ]
        return [Shard(r.key, {"split": r.split, "start": r.start, "stop": r.stop}) for r in ranges]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.model, context.device)
        tokens = run.cached(TOKENS, lambda: TokenStore(run.step_folder(TOKENS)))
        tokens.check_tokenizer(model.tokenizer)
        write_activation_shard(
            model,
            tokens,
            WindowRange(**shard.params),
            self.points,
            self.extract,
            context.folder,
            context.sink,
        )

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        store: ActivationStore = finish_store(folder)
        sink.message(f"{store.n_rows('train'):,} training activations at each hook point.")
