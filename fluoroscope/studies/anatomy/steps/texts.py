"""Text -> windows of tokens, a step for each corpus (`texts/`, `texts-NAME/`).

As much is read as the slices need: of a corpus with an end whose last windows are wanted, all.
"""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.core.sink import Sink
from fluoroscope.data.corpora import finish_token_store, token_shards, write_token_shard
from fluoroscope.data.corpus_config import GENERATED, MODEL_SOURCE, CorpusConfig, Split
from fluoroscope.data.token_store import TokenStore
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.studies.anatomy.plans import AnatomyConfig

TEXTS = "texts"


def texts_step_name(corpus: str) -> str:
    """Of the step that reads a corpus; the main one has no name."""
    return f"{TEXTS}-{corpus}" if corpus else TEXTS


class TextsStep(MapStep):
    def __init__(self, config: AnatomyConfig, corpus: str = "") -> None:
        self.config, self.name = config, texts_step_name(corpus)
        self.corpus: CorpusConfig = config.corpora()[corpus]
        self.split: Split = config.split_of(corpus)
        # The first windows of every text are what sets of SAEs are judged on.
        own = 0 if corpus else len(config.slices) * config.n_sequences
        self.n_windows = max(own, config.cross.n_sequences)
        has_end = self.corpus.source != MODEL_SOURCE and self.corpus.source not in GENERATED
        self.reads_all = has_end and not corpus and "last" in config.slices

    @property
    def n_tokens(self) -> int:
        """Tokens of the split that fill the windows, whatever is in them."""
        return self.n_windows * self.corpus.context

    def cost(self) -> Cost:
        share = self.corpus.held_out / 2 if self.split == "test" else 1.0
        seconds = (6e-6 if self.corpus.source in GENERATED else 1e-6) * self.n_tokens / share
        return Cost(
            overhead_s=seconds,
            memory_bytes=0.3e9,
            disk_bytes=13.0 * self.n_tokens / share * (1 if self.corpus.pack else 5),
            note="all of the corpus, to reach its end" if self.reads_all else "what is needed",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(s.key, {"start": s.start}) for s in token_shards(self.corpus, self._asked)]

    @property
    def _asked(self) -> int:
        # Sampled text is reckoned by its training split.
        held_out = self.corpus.held_out
        share = held_out / 2 if self.split == "test" else 1 - held_out
        return int(self.n_tokens * (1 - held_out) / share) + 1

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.config.model, context.device)
        [own] = [s for s in token_shards(self.corpus, self._asked) if s.key == shard.key]
        write_token_shard(
            self.corpus,
            own,
            model.tokenizer,
            context.folder,
            n_tokens=None if self.reads_all else self.n_tokens,
            split=self.split,
            network=model.network if self.corpus.source == MODEL_SOURCE else None,
            sink=context.sink,
        )

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        store = finish_token_store(folder)
        found = store.n_windows(self.split)
        if found < self.n_windows:
            sink.message(
                f"The text has {found} windows of {store.context} tokens, and {self.n_windows} "
                "were asked for: as many are read as there are."
            )


def open_texts(run: Run, corpus: str = "") -> TokenStore:
    name = texts_step_name(corpus)
    return run.cached(name, lambda: TokenStore(run.step_folder(name)))
