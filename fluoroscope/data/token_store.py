"""A corpus as packed windows of tokens on disk: memory-mapped, split by document, checksummed.

    folder/
      manifest.json                    what it was made of, and its parts with their checksums
      shards/<key>/<split>-00000.safetensors   tokens, document, position [windows, context]
      shards/<key>/documents-00000.parquet     document, id, split, n_tokens, beginning

A window never holds tokens of two splits. Tokens that fill up a window have document -1; a start
token put before the rest of a document that a window cut has position -1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import CorpusError, MismatchError
from fluoroscope.core.storage import check_file, read_json
from fluoroscope.core.tensors import open_tensors
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.packing import COLUMNS, PADDING
from fluoroscope.data.tokenizing import tokenizer_hash

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Windows:
    """Packed windows; `document` is the index in the corpus, `position` that in the document."""

    tokens: Int[Tensor, "windows context"]
    document: Int[Tensor, "windows context"]
    position: Int[Tensor, "windows context"]
    is_start: Bool[Tensor, "windows context"]
    """Start and separator tokens, which stand for no text."""

    @property
    def attention_mask(self) -> Int[Tensor, "windows context"]:
        """0 on the padding that fills a window."""
        return (self.document != PADDING).long()

    def __len__(self) -> int:
        return self.tokens.shape[0]


@dataclass(frozen=True)
class WindowRange:
    """Windows `start` to `stop` of a split: what one shard of a map works on."""

    split: Split
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.split}-{self.start:09d}"

    def tiles(self, size: int) -> Iterator["WindowRange"]:
        """Ranges of `size` windows one after the other; the last may be shorter."""
        for at in range(self.start, self.stop, size):
            yield WindowRange(self.split, at, min(at + size, self.stop))

    def __len__(self) -> int:
        return self.stop - self.start


class TokenStore:
    """Reads what `write_token_store` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / MANIFEST).exists():
            raise CorpusError(f"{folder} holds no tokens ({MANIFEST} is missing); write it first.")
        self.manifest: dict[str, Any] = read_json(folder / MANIFEST)  # Any: JSON.
        self.context: int = self.manifest["context"]
        self._parts = {
            split: [part for part in self.manifest["parts"] if part["split"] == split]
            for split in SPLITS
        }
        self._ends = {
            split: np.cumsum([part["windows"] for part in parts], dtype=np.int64)
            for split, parts in self._parts.items()
        }
        self._verified: set[str] = set()

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, and so of every token."""
        return settings_hash(self.manifest)

    def n_windows(self, split: Split) -> int:
        ends = self._ends[split]
        return int(ends[-1]) if len(ends) else 0

    def n_tokens(self, split: Split) -> int:
        """Tokens of text: without padding, start and separator tokens."""
        return sum(part["tokens"] for part in self._parts[split])

    def n_windows_for(self, split: Split, n_tokens: int) -> int:
        """The fewest first windows of a split that hold `n_tokens` of text, or all of them."""
        reached = np.cumsum(self.counts(split)[:, 1])
        return min(int(np.searchsorted(reached, n_tokens)) + 1, len(reached))

    def ranges(self, split: Split, size: int, limit: int | None = None) -> list[WindowRange]:
        """The first `limit` windows of a split (all by default) in ranges of `size`."""
        stop = self.n_windows(split) if limit is None else min(limit, self.n_windows(split))
        return list(WindowRange(split, 0, stop).tiles(size))

    def windows(self, split: Split, start: int, stop: int) -> Windows:
        """Windows `start` to `stop`; only their bytes are read. They are as wide as the longest of
        them, at most `context`.
        """
        columns = [self._read(split, name, start, stop) for name in COLUMNS]
        is_real = (columns[COLUMNS.index("document")] != PADDING).any(dim=0)
        longest = int(is_real.sum())
        tokens, document, position, is_start = (column[:, :longest] for column in columns)
        return Windows(tokens.long(), document, position, is_start.bool())

    def counts(self, split: Split) -> Int[np.ndarray, "windows 2"]:
        """For each window: its tokens without padding, and those of them that are text."""
        counts = self._read(split, "counts", 0, self.n_windows(split))
        return counts.numpy().astype(np.int64)

    def documents(self) -> pl.DataFrame:
        """document, id (hash of the text), split, n_tokens, beginning; sorted by document."""
        files = sorted((self.folder / "shards").glob("*/documents-*.parquet"))
        return pl.concat([pl.read_parquet(file) for file in files]).sort("document")

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises `MismatchError` unless the store was made with this tokenizer."""
        made_with, given = self.manifest["tokenizer_sha256"], tokenizer_hash(tokenizer)
        if made_with != given:
            raise MismatchError(
                f"The tokens in {self.folder} were made with tokenizer {made_with[:16]}..., the "
                f"model's is {given[:16]}.... Use the model that they were made for, "
                "or write them anew."
            )

    def _read(self, split: Split, column: str, start: int, stop: int) -> Tensor:
        if not 0 <= start <= stop <= self.n_windows(split):
            raise IndexError(
                f"Windows {start} to {stop} of {split}: there are {self.n_windows(split)}."
            )
        ends, parts, pieces = self._ends[split], self._parts[split], []
        first = int(np.searchsorted(ends, start, side="right"))
        for index in range(first, len(parts)):
            begin = int(ends[index]) - parts[index]["windows"]
            if begin >= stop:
                break
            first_row, last_row = max(start - begin, 0), min(stop, int(ends[index])) - begin
            pieces.append(self._slice(parts[index], column, first_row, last_row))
        if not pieces:
            width = 2 if column == "counts" else self.context
            return torch.zeros((0, width), dtype=torch.int32)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _slice(self, part: dict[str, Any], column: str, first: int, last: int) -> Tensor:
        name = part["file"]
        if name not in self._verified:
            check_file(self.folder / name, part["sha256"])
            self._verified.add(name)
        # Opened anew each time: a mapping that lives on would keep every page it ever read.
        with open_tensors(self.folder / name) as file:
            return file.get_slice(column)[first:last]
