"""Writes one shard of a `TokenStore`: parts of bounded size, each of one split."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from fluoroscope.core.storage import sha256_file, write_json, write_parquet
from fluoroscope.core.tensors import write_tensors
from fluoroscope.data.corpus_config import SPLITS, CorpusConfig, Split
from fluoroscope.data.documents import Document, split_of, text_id
from fluoroscope.data.packing import COLUMNS, PADDING, Packed, Packer
from fluoroscope.data.tokenizing import StartTokens

CONTENTS = "contents.json"

_PART_TOKENS = 1 << 21
_PART_DOCUMENTS = 1 << 16
_BEGINNING_CHARACTERS = 80


class TokenShardWriter:
    """`add` documents, then `close`; holds one part of each split at most."""

    def __init__(
        self, folder: Path, config: CorpusConfig, starts: StartTokens, padding_token: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.n_text_tokens: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self._folder = folder
        self._held_out = config.held_out
        self._packers: dict[Split, Packer] = {
            split: Packer(config.context, starts, padding_token, pack=config.pack)
            for split in SPLITS
        }
        self._parts: list[dict[str, object]] = []
        self._documents: list[tuple[int, str, str, int, str]] = []
        self._n_documents = 0

    def add(self, document: Document, tokens: Sequence[int]) -> None:
        """A document without tokens is passed over."""
        if not tokens:
            return
        split = split_of(document.text, self._held_out)
        packer = self._packers[split]
        packer.add(document.index, tokens)
        self.n_text_tokens[split] += len(tokens)
        beginning = document.text[:_BEGINNING_CHARACTERS]
        row = (document.index, text_id(document.text), split, len(tokens), beginning)
        self._documents.append(row)
        if packer.n_waiting >= _PART_TOKENS:
            self._write_part(split, packer.take())
        if len(self._documents) >= _PART_DOCUMENTS:
            self._write_documents()

    def close(self, shared: Mapping[str, object]) -> None:
        """Writes what is left, and `contents.json` with what all shards have in common."""
        for split in SPLITS:
            self._write_part(split, self._packers[split].take(everything=True))
        self._write_documents()
        write_json(
            self._folder / CONTENTS,
            {"shared": dict(shared), "parts": self._parts, "n_documents": self._n_documents},
        )

    def _write_part(self, split: Split, packed: Packed) -> None:
        if packed.shape[1] == 0:
            return
        number = sum(part["split"] == split for part in self._parts)
        path = self._folder / f"{split}-{number:05d}.safetensors"
        columns = dict(zip(COLUMNS, torch.from_numpy(packed), strict=True))
        is_real = packed[COLUMNS.index("document")] != PADDING
        is_text = is_real & (packed[COLUMNS.index("is_start")] == 0)
        counts = np.stack([is_real.sum(1), is_text.sum(1)], axis=1).astype(np.int32)
        columns["is_start"] = columns["is_start"].to(torch.uint8)
        write_tensors(path, {**columns, "counts": torch.from_numpy(counts)})
        self._parts.append(
            {
                "file": path.name,
                "split": split,
                "windows": packed.shape[1],
                "tokens": int(is_text.sum()),
                "sha256": sha256_file(path),
            }
        )

    def _write_documents(self) -> None:
        number = self._n_documents // _PART_DOCUMENTS
        schema = {
            "document": pl.Int32,
            "id": pl.String,
            "split": pl.String,
            "n_tokens": pl.Int32,
            "beginning": pl.String,
        }
        frame = pl.DataFrame(self._documents, schema=schema, orient="row")
        write_parquet(self._folder / f"documents-{number:05d}.parquet", frame)
        self._n_documents += len(self._documents)
        self._documents = []
