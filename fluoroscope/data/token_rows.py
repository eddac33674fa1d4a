"""Rows of tokens: flat in memory, padded when a batch is made, remembered on disk.

A file is known by everything that decides its content; any other of it is another file, and a
file that is not what its checksum says is made again.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64
from torch import Tensor

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ConfigError, DamagedError
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors


class Places(NamedTuple):
    """Where the tokens of a batch are among all; 0 at padding."""

    at: Int64[np.ndarray, "b s"]
    is_token: Bool[np.ndarray, "b s"]


@dataclass(frozen=True)
class TokenRows:
    """Tokens of all rows one after another; row `i` is `tokens[starts[i]:starts[i + 1]]`."""

    tokens: Int32[np.ndarray, " n_tokens"]
    starts: Int64[np.ndarray, " n_starts"]
    """One more than there are rows."""

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | Int32[np.ndarray, " length"]]) -> "TokenRows":
        found = [np.array(row, np.int32) for row in rows]
        starts = np.cumsum([0, *map(len, found)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int32), *found]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> Int32[np.ndarray, " length"]:
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        return np.diff(self.starts)

    def padded(
        self, rows: Int[np.ndarray, " b"], fill: int, pad_to: int | None = None
    ) -> Int64[np.ndarray, "b s"]:
        """On the right, to the longest of these rows or to `pad_to`."""
        at, is_token = places(self.starts, rows, pad_to)
        tokens = self.tokens if len(self.tokens) else np.zeros(1, np.int32)
        return np.where(is_token, tokens[at], fill).astype(np.int64)


def places(
    starts: Int64[np.ndarray, " n_starts"],
    rows: Int[np.ndarray, " b"],
    pad_to: int | None = None,
) -> Places:
    """Of rows that are padded on the right to the longest of them, or to `pad_to`."""
    lengths = np.diff(starts)[rows]
    longest = int(lengths.max(initial=1))
    if pad_to is not None and pad_to < longest:
        raise ConfigError(f"pad_to must be at least {longest}, the longest row; got {pad_to}.")
    place = np.arange(pad_to or longest)
    is_token = place < lengths[:, None]
    return Places(np.where(is_token, starts[rows][:, None] + place, 0), is_token)


def remembered(
    cache: Path | None,
    made_of: Callable[[], object],
    make: Callable[[], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """What `make` gives, from a file of the folder `cache` where there is one; `made_of` gives the
    JSON value that it is known by.
    """
    if cache is None:
        return dict(make())
    path = cache / f"{settings_hash(made_of())[:32]}.safetensors"
    if path.exists():
        try:
            tensors = read_tensors(path)
            if read_metadata(path) == {"sha256": _checksum(tensors)}:
                return tensors
        except DamagedError:
            path.unlink(missing_ok=True)
    tensors = dict(make())
    write_tensors(path, tensors, {"sha256": _checksum(tensors)})
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
