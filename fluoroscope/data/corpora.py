"""A corpus -> a `TokenStore`, in shards that are written independently of each other.

Text is read, cut, tokenised and packed as it streams by, so a corpus larger than memory
works. Text that must be read from its beginning is one shard; text sampled from the model
is one shard for every so many documents.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.data.token_store import TokenStore


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
    raise NotImplementedError


def token_shards(config: CorpusConfig, n_tokens: int | None) -> list[TokenShard]:
    """The shards of a corpus, known without reading it."""
    raise NotImplementedError


def write_token_shard(
    config: CorpusConfig,
    shard: TokenShard,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    n_tokens: int | None = None,
    network: nn.Module | None = None,
    sink: Sink = SILENT,
) -> None:
    """Fills `folder` with the parts of one shard."""
    raise NotImplementedError


def finish_token_store(
    folder: Path, n_tokens: int | None = None, sink: Sink = SILENT
) -> TokenStore:
    """Writes the manifest over `folder/shards/*`; says how many epochs `n_tokens` are."""
    raise NotImplementedError
