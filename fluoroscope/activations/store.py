"""Activations of a corpus on disk: sharded, checksummed, memory-mapped, rows aligned.

    folder/
      manifest.json                        model, tokens, hook points, shards with checksums
      shards/<key>/<hook point>.safetensors    "activations" [rows, d_model]
      shards/<key>/index.parquet               row, document, position, token, window, place

Row i of one hook point is the same token as row i of every other. A shard holds windows of
one split. Files are checked against their checksum when they are first read.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.activations.extract_config import BYTES_PER_NUMBER, ExtractConfig, StoreDtype
from fluoroscope.activations.row_file import TENSOR
from fluoroscope.activations.store_writer import CONTENTS, INDEX
from fluoroscope.activations.store_writer import write_activation_shard as write_activation_shard
from fluoroscope.core.config import build, settings_hash
from fluoroscope.core.errors import DamagedError, MismatchError, ModelError
from fluoroscope.core.storage import check_file, read_json, write_json
from fluoroscope.core.tensors import open_tensors
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.identity import ModelIdentity

MANIFEST = "manifest.json"

_INDEX_BYTES = 24


def finish_store(folder: Path) -> "ActivationStore":
    """Writes the manifest over `folder/shards/*`; all must be of one model and one corpus."""
    shards: list[dict[str, Any]] = []  # Any: JSON.
    shared: dict[str, Any] | None = None
    for place in sorted((folder / "shards").iterdir()):
        shard = read_json(place / CONTENTS)
        if shared is not None and shard["shared"] != shared:
            raise MismatchError(
                f"{place} was made with another model, corpus or setting than the shards before "
                "it. Delete the folder and extract again."
            )
        shared = shard["shared"]
        shards.append({**shard["shard"], "key": place.name})
    write_json(folder / MANIFEST, {**(shared or {}), "shards": shards})
    return ActivationStore(folder)


def estimate_bytes(n_rows: int, n_points: int, d_model: int, dtype: StoreDtype) -> int:
    """An upper bound of the disk that a store of so many rows takes, with its index."""
    return n_rows * (n_points * d_model * BYTES_PER_NUMBER[dtype] + _INDEX_BYTES) + (1 << 20)


class ActivationStore:
    """Reads what `write_activation_shard` and `finish_store` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / MANIFEST).exists():
            raise DamagedError(
                f"{folder} holds no finished activation store ({MANIFEST} is missing). Run the "
                "command that extracts it again."
            )
        self.manifest: dict[str, Any] = read_json(folder / MANIFEST)  # Any: JSON.
        self.points = [HookPoint(name) for name in self.manifest["hook_points"]]
        self.d_model: int = self.manifest["d_model"]
        self.config = build(ExtractConfig, self.manifest["config"])
        self._shards = {
            split: [shard for shard in self.manifest["shards"] if shard["split"] == split]
            for split in SPLITS
        }
        self._ends = {
            split: np.cumsum([shard["rows"] for shard in shards], dtype=np.int64)
            for split, shards in self._shards.items()
        }
        self._verified: set[Path] = set()

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, and so of every number."""
        return settings_hash(self.manifest)

    def n_rows(self, split: Split) -> int:
        ends = self._ends[split]
        return int(ends[-1]) if len(ends) else 0

    def tile_rows(self, split: Split) -> Int[np.ndarray, " tiles"]:
        """Rows of each tile, which are what is read at once and shuffled as a block."""
        tiles = [np.asarray(shard["tile_rows"], np.int64) for shard in self._shards[split]]
        return np.concatenate([np.empty(0, np.int64), *tiles])

    def read(
        self, point: HookPoint, split: Split, start: int, stop: int
    ) -> Float[Tensor, "rows d_model"]:
        """Rows `start` to `stop` of a split, in the store's dtype; only their bytes are read."""
        if point not in self.points:
            there = ", ".join(map(str, self.points))
            raise ModelError(f"The store {self.folder} has no hook point {point}, only {there}.")
        if not 0 <= start <= stop <= self.n_rows(split):
            raise IndexError(f"Rows {start} to {stop} of {split}: there are {self.n_rows(split)}.")
        ends, shards, pieces = self._ends[split], self._shards[split], []
        for number in range(int(np.searchsorted(ends, start, side="right")), len(shards)):
            begin = int(ends[number]) - shards[number]["rows"]
            if begin >= stop:
                break
            first, last = max(start - begin, 0), min(stop - begin, shards[number]["rows"])
            pieces.append(self._slice(shards[number], f"{point}.safetensors", first, last))
        if not pieces:
            return torch.zeros(0, self.d_model, dtype=getattr(torch, self.config.dtype))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def index(self, split: Split) -> pl.DataFrame:
        """row, document, position, token, window and place (in the window) of a split's rows."""
        frames = [pl.read_parquet(self._checked(shard, INDEX)) for shard in self._shards[split]]
        if not frames:
            return pl.DataFrame()
        return pl.concat(frames).drop("row").with_row_index("row")

    def check_model(self, identity: ModelIdentity) -> None:
        """Raises `MismatchError` unless the activations are of this model."""
        made_with = self.manifest["model"]
        if made_with["weights_sha256"] != identity.weights_sha256:
            raise MismatchError(
                f"The activations in {self.folder} are of the model {made_with['id']} (weights "
                f"{made_with['weights_sha256'][:16]}...), not of {identity.id} (weights "
                f"{identity.weights_sha256[:16]}...). Use that model, or extract anew."
            )

    def _slice(self, shard: dict[str, Any], name: str, first: int, last: int) -> Tensor:
        # Opened anew each time: a mapping that lives on would keep every page it ever read.
        with open_tensors(self._checked(shard, name)) as file:
            return file.get_slice(TENSOR)[first:last]

    def _checked(self, shard: dict[str, Any], name: str) -> Path:
        path = self.folder / "shards" / shard["key"] / name
        if path not in self._verified:
            check_file(path, shard["files"][name])
            self._verified.add(path)
        return path
