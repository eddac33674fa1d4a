"""Active latents of many tokens, sorted by latent: what exact statistics of latents are made of.

A writer takes the active entries of one stretch of tokens after another, for several SAEs at once.
Before they take more memory than was stated they are sorted and written to disk as a part of each.
A reader puts the parts together again, a range of latents at a time. Within a latent the entries
stand in order of their tokens however they were cut into parts, so nothing that is computed from
them depends on that, to the bit.

An entry takes 12 bytes of memory while it waits, 8 more while it is sorted, and 8 on disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt32
from safetensors import safe_open

from fluoroscope.core.errors import MismatchError, NumericsError
from fluoroscope.core.tensors import open_tensors, write_tensors
from fluoroscope.features import statistics_kernels as kernels
from fluoroscope.sae.sparse_kernels import SparseLatents

BYTES_WAITING, BYTES_WRITTEN = 12, 8
"""Of an entry: latent, token and value; and token and value."""

_MERGED_BYTES = 64 << 20

_MOST_TOKENS = 1 << 32
"""That a number of four bytes tells apart."""


class Columns(NamedTuple):
    """Entries of the latents `first`, `first` + 1, ...: those of latent i at `starts[i - first]` to
    `starts[i - first + 1]`, their tokens ascending.
    """

    first: int
    starts: Int64[np.ndarray, " m+1"]
    tokens: UInt32[np.ndarray, " nnz"]
    values: Float32[np.ndarray, " nnz"]


class ColumnsWriter:
    """Takes entries of the SAEs `d_sae` (name -> latents), writes `folder`/NAME/part-00000...

    All that it holds, sorting and writing included, stays within `memory_bytes` but for the entries
    that came last: they are added before they are counted.
    """

    def __init__(self, folder: Path, d_sae: Mapping[str, int], memory_bytes: int = 1 << 29) -> None:
        self.folder, self.memory_bytes = folder, memory_bytes
        self.n_spills = 0
        self._waiting = {name: _Waiting(n) for name, n in d_sae.items()}

    def add(self, name: str, latents: SparseLatents, first_token: int) -> None:
        """The entries of tokens `first_token`, + 1, ...: row by row, tokens may only ascend."""
        waiting = self._waiting[name]
        if first_token < waiting.next_token:
            raise MismatchError(
                f"Entries of {name} came for token {first_token} after those of token "
                f"{waiting.next_token - 1}; give tokens in ascending order."
            )
        waiting.add(name, latents, first_token)
        if self.n_waiting * (BYTES_WAITING + BYTES_WRITTEN) > self.memory_bytes:
            self._spill()

    @property
    def n_waiting(self) -> int:
        """Entries in memory."""
        return sum(waiting.n for waiting in self._waiting.values())

    def close(self) -> None:
        """Writes what waits; every SAE has one part at least, be it empty."""
        if self.n_waiting or self.n_spills == 0:
            self._spill()

    def _spill(self) -> None:
        for name, waiting in self._waiting.items():
            starts, tokens, values = waiting.take()
            path = self.folder / name / f"part-{self.n_spills:05d}.safetensors"
            n_tokens = np.array([waiting.next_token])
            parts = {"starts": starts, "tokens": tokens, "values": values, "n_tokens": n_tokens}
            write_tensors(path, {key: torch.from_numpy(one) for key, one in parts.items()})
        self.n_spills += 1


@dataclass
class _Waiting:
    d_sae: int
    n: int = 0
    next_token: int = 0
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, name: str, latents: SparseLatents, first_token: int) -> None:
        if latents.d_sae != self.d_sae:
            raise MismatchError(
                f"{name} was announced with {self.d_sae} latents, and has {latents.d_sae}."
            )
        if first_token + latents.n_rows > _MOST_TOKENS:
            raise MismatchError(
                f"Entries of {name} came for tokens up to {first_token + latents.n_rows - 1}; "
                f"columns hold {_MOST_TOKENS} tokens. Write the rest to another folder."
            )
        # Half precision on some devices is of a kind that numpy does not know.
        values = latents.values.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise NumericsError(
                f"Latents of {name} are not finite between tokens {first_token} and "
                f"{first_token + latents.n_rows}. Load the model in float32 or bfloat16."
            )
        tokens = (latents.rows.cpu().numpy() + first_token).astype(np.uint32)
        indices = latents.indices.cpu().numpy().astype(np.int32, copy=False)
        self.next_token = first_token + latents.n_rows
        # What an encoder leaves at 0 is not active, whatever list it stands in.
        if not (values > 0).all():
            is_active = values > 0
            indices, tokens, values = indices[is_active], tokens[is_active], values[is_active]
        # A copy: the arrays may be views of an encoder's scratch memory.
        self.pieces.append((indices.copy(), tokens, values.copy()))
        self.n += len(values)

    def take(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Starts [s + 1], tokens and values in order of the latent, and of the token within it."""
        starts = np.zeros(self.d_sae + 1, np.int64)
        for latents, _, _ in self.pieces:
            kernels.count_latents(latents, starts)
        np.cumsum(starts, out=starts)
        tokens, values = np.empty(self.n, np.uint32), np.empty(self.n, np.float32)
        place = starts[:-1].copy()
        # Each piece is given up as soon as it is in its place.
        pieces = self.pieces[::-1]
        self.pieces, self.n = [], 0
        while pieces:
            kernels.place_by_latent(*pieces.pop(), place, tokens, values)
        return starts, tokens, values


class LatentColumns:
    """Reads the parts of one SAE, given in the order of their tokens."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.parts = list(parts)
        self._starts: list[np.ndarray] = []
        self.n_tokens = 0
        """Tokens were given up to this one, be any latent active in them or not."""
        for path in self.parts:
            with open_tensors(path) as file:
                self._starts.append(file.get_tensor("starts").numpy())
                self.n_tokens = max(self.n_tokens, _n_tokens(file))
        widths = {len(starts) for starts in self._starts}
        if len(widths) != 1:
            raise MismatchError(
                f"The parts {[path.name for path in self.parts]} must be of one SAE; they have "
                f"{sorted(width - 1 for width in widths)} latents."
            )
        self.d_sae = widths.pop() - 1
        self.counts: Int64[np.ndarray, " s"] = sum(
            (np.diff(starts) for starts in self._starts), np.zeros(self.d_sae, np.int64)
        )
        """Active tokens of each latent."""

    def check_tokens(self, n_tokens: int) -> None:
        """Refuses tokens of another text than the one that these columns are of, which is longer:
        what counts tokens looks no entry up twice.
        """
        if n_tokens < self.n_tokens:
            raise MismatchError(
                f"These columns are of {self.n_tokens} tokens, and what came is for {n_tokens}. "
                "Give the layout of the text that was read, all of its sequences and its context."
            )

    def block(self, first: int, stop: int) -> Columns:
        """The latents `first` to `stop`."""
        counts = self.counts[first:stop]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        tokens, values = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.float32)
        filled = starts[:-1].copy()
        for path, own in zip(self.parts, self._starts, strict=True):
            begin, end = int(own[first]), int(own[stop])
            if begin == end:
                continue
            with open_tensors(path) as file:
                part_tokens = file.get_slice("tokens")[begin:end].numpy()
                part_values = file.get_slice("values")[begin:end].numpy()
            local = own[first : stop + 1] - begin
            kernels.append_columns(local, part_tokens, part_values, filled, tokens, values)
        return Columns(first, starts, tokens, values)

    def blocks(self, memory_bytes: int = _MERGED_BYTES) -> Iterator[Columns]:
        """All latents in turn; a block of several takes at most `memory_bytes`."""
        ends = np.cumsum(self.counts)
        most = max(1, memory_bytes // BYTES_WRITTEN)
        first = 0
        while first < self.d_sae:
            before = int(ends[first - 1]) if first else 0
            fitting = int(np.searchsorted(ends, before + most, side="right"))
            stop = min(self.d_sae, max(first + 1, fitting))
            yield self.block(first, stop)
            first = stop

    def latent(self, latent: int) -> tuple[UInt32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Where one latent is active, and how much."""
        found = self.block(latent, latent + 1)
        return found.tokens, found.values


def _n_tokens(part: safe_open) -> int:
    if "n_tokens" in part.keys():  # noqa: SIM118
        return int(part.get_tensor("n_tokens"))
    # Parts did not always say it; then it is known up to the last active token.
    tokens = part.get_tensor("tokens").numpy()
    return int(tokens.max()) + 1 if len(tokens) else 0
