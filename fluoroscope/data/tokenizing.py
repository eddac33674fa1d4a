"""Texts -> tokens in large batches, and which tokens start documents and windows."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import CorpusError
from fluoroscope.data.documents import Document

_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class StartTokens:
    """What stands before text; None where nothing does."""

    document: int | None
    """Before each document: the first token, or else the separator of documents."""

    window: int | None
    """Before the rest of a document that a window cut."""


def start_tokens(
    tokenizer: PreTrainedTokenizerBase, bos: Literal["auto", "always", "never"]
) -> StartTokens:
    """BOS (CLS in encoders) before documents and windows, or EOS between documents."""
    first = special_token(tokenizer, "bos", "cls")
    separator = special_token(tokenizer, "eos")
    match bos:
        case "never":
            return StartTokens(document=separator, window=None)
        case "auto":
            puts_first = first is not None and first in list(tokenizer("a")["input_ids"])[:1]
            return StartTokens(first, first) if puts_first else StartTokens(separator, None)
        case "always":
            first = separator if first is None else first
    if first is None:
        raise CorpusError(
            "bos=always needs a tokenizer with a BOS, CLS or EOS token; this one has none. Set "
            "bos=auto or bos=never."
        )
    return StartTokens(first, first)


def tokenized(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[Document, Sequence[int]]]:
    """Each document with its tokens, none of them special; read ahead by one batch at most."""
    for batch in _batches(documents):
        yield from zip(batch, encode(tokenizer, [d.text for d in batch]), strict=True)


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The tokens of each text without special tokens, however long it is."""
    backend = _backend(tokenizer)
    if backend is None:
        return [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    # Four times as fast as calling the tokenizer, which also makes masks, types and offsets.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of how a tokenizer cuts text: its vocabulary, rules and special tokens."""
    rules: dict[str, object] = {"special": tokenizer.all_special_ids}
    backend = _backend(tokenizer)
    if backend is not None:
        rules |= json.loads(backend.to_str())
        # The state of the last call, not part of the tokenizer.
        rules |= {"padding": None, "truncation": None}
    else:
        rules["vocabulary"] = tokenizer.get_vocab()
    return settings_hash(rules)


def special_token(tokenizer: PreTrainedTokenizerBase, *names: str) -> int | None:
    """The id of the first of `names` ("bos", "cls", ...) that the tokenizer has."""
    ids = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
    return next((token for token in ids if isinstance(token, int)), None)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend if isinstance(backend, Tokenizer) else None


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
