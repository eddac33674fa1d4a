"""A corpus -> a `TokenStore`, in shards that are written independently of each other.

Text is read, cut, tokenised and packed as it streams by, so a corpus larger than memory
works. Text that must be read from its beginning is one shard; text sampled from the model
is one shard for every so many documents.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.data.corpus_config import (
    GENERATED,
    MODEL_SOURCE,
    SPLITS,
    CorpusConfig,
    Split,
    parse_take,
)
from fluoroscope.data.documents import Document, read_documents
from fluoroscope.data.sampled_text import sampled_documents
from fluoroscope.data.token_store import MANIFEST, TokenStore
from fluoroscope.data.token_writer import CONTENTS, TokenShardWriter
from fluoroscope.data.tokenizing import special_token, start_tokens, tokenized, tokenizer_hash

_SAMPLED_TILES_IN_A_SHARD = 8


@dataclass(frozen=True)
class TokenShard:
    """A shard of a corpus; documents `start` to `stop`, or all where `stop` is None."""

    key: str
    start: int = 0
    stop: int | None = None


def write_token_store(
    config: CorpusConfig,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    n_tokens: int | None = None,
    network: nn.Module | None = None,
    sink: Sink = SILENT,
) -> TokenStore:
    """All shards one after the other, then the manifest.

    Stops when the training split has `n_tokens` tokens of text; None reads the whole corpus.
    `network` is needed by `source="model:"` alone.
    """
    for shard in token_shards(config, n_tokens):
        place = folder / "shards" / shard.key
        write_token_shard(
            config, shard, tokenizer, place, n_tokens=n_tokens, network=network, sink=sink
        )
    return finish_token_store(folder, n_tokens, sink)


def token_shards(config: CorpusConfig, n_tokens: int | None) -> list[TokenShard]:
    """The shards of a corpus, known without reading it."""
    rule, amount = parse_take(config.take)
    has_end = config.source != MODEL_SOURCE and config.source not in GENERATED
    if not has_end and rule != "first" and n_tokens is None:
        raise CorpusError(
            f"The corpus {config.source} has no end: say how much of it is read, by n_tokens=N or "
            "take=first:N."
        )
    if config.source != MODEL_SOURCE:
        return [TokenShard("text")]
    if n_tokens is None or rule == "first":
        n_documents = int(amount)
    else:
        # A little more, as the held-out share is met on average only.
        share = (1 - config.held_out) / 1.05
        n_documents = math.ceil(n_tokens / share / config.sampled.max_tokens)
    size = config.sampled.tile * _SAMPLED_TILES_IN_A_SHARD
    return [
        TokenShard(f"sampled-{start:09d}", start, min(start + size, n_documents))
        for start in range(0, n_documents, size)
    ]


def write_token_shard(
    config: CorpusConfig,
    shard: TokenShard,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    n_tokens: int | None = None,
    split: Split = "train",
    network: nn.Module | None = None,
    sink: Sink = SILENT,
) -> None:
    """Fills `folder` with the parts of one shard; stops when `split` has `n_tokens` of text."""
    starts = start_tokens(tokenizer, config.bos)
    writer = TokenShardWriter(folder, config, starts, special_token(tokenizer, "pad") or 0)
    for document, tokens in _shard_documents(config, shard, tokenizer, network):
        writer.add(document, tokens)
        n_done = writer.n_text_tokens[split]
        sink.progress(n_done, n_tokens or n_done, "tokens")
        if shard.stop is None and n_tokens is not None and n_done >= n_tokens:
            break
    writer.close(
        {
            "tokenizer_sha256": tokenizer_hash(tokenizer),
            "context": config.context,
            "source": _plain_source(config.source),
            "take": config.take,
            "held_out": config.held_out,
            "start_tokens": {"document": starts.document, "window": starts.window},
        }
    )


def _shard_documents(
    config: CorpusConfig,
    shard: TokenShard,
    tokenizer: PreTrainedTokenizerBase,
    network: nn.Module | None,
) -> Iterator[tuple[Document, Sequence[int]]]:
    if config.source != MODEL_SOURCE:
        return tokenized(read_documents(config), tokenizer)
    if network is None or shard.stop is None:
        raise CorpusError("source=model: needs the model's network and a range of documents.")
    return sampled_documents(network, tokenizer, config.sampled, shard.start, shard.stop)


def _plain_source(source: str) -> str:
    # A manifest holds no path of this machine, so that a run's files are the same anywhere.
    return source if ":" in source else Path(source).name


def finish_token_store(
    folder: Path, n_tokens: int | None = None, sink: Sink = SILENT
) -> TokenStore:
    """Writes the manifest over `folder/shards/*`; says how many epochs `n_tokens` are."""
    parts: list[dict[str, object]] = []
    shared: dict[str, object] = {}
    n_documents = 0
    for place in sorted((folder / "shards").iterdir()):
        shard = read_json(place / CONTENTS)
        parts += [
            {**part, "file": f"shards/{place.name}/{part['file']}"} for part in shard["parts"]
        ]
        n_documents += shard["n_documents"]
        if shared and shard["shared"] != shared:
            raise CorpusError(
                f"The shards in {folder / 'shards'} were not made with the same tokenizer and "
                "settings. Delete that folder and run again."
            )
        shared = shard["shared"]
    write_json(folder / MANIFEST, {**shared, "n_documents": n_documents, "parts": parts})
    store = TokenStore(folder)
    _check_filled(store)
    available = store.n_tokens("train")
    if n_tokens is not None and available < n_tokens:
        sink.message(
            f"The training split has {available:,} tokens, so n_tokens={n_tokens:,} means "
            f"{n_tokens / available:.2f} epochs over it."
        )
    return store


def _check_filled(store: TokenStore) -> None:
    held_out = store.manifest["held_out"]
    n_documents = store.manifest["n_documents"]
    wanted = SPLITS if held_out else ("train",)
    empty = [split for split in wanted if store.n_tokens(split) == 0]
    if n_documents == 0 or "train" in empty:
        raise CorpusError(
            f"The corpus {store.manifest['source']} gives zero tokens to train on "
            f"({n_documents} documents, take={store.manifest['take']}). Give a corpus with text."
        )
    if empty:
        raise CorpusError(
            f"None of the {n_documents} documents that were read fell to {' and '.join(empty)}. "
            "Read more (a larger n_tokens or corpus), cut them finer (split_documents_on), or set "
            f"held_out (now {held_out}) higher."
        )
