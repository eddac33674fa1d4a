"""Shuffled batches of activations, for many hook points at once.

Two levels of shuffling keep memory bounded. Every epoch the chunks of the source are put in
a new order and taken in groups that fit a buffer; inside a group the rows are put in a new
order. Both orders follow from (seed, epoch, group) alone, so any batch can be reached by
loading the one or two groups that it is cut from.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.activations.sources import ActivationSource
from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.seeding import stream
from fluoroscope.core.tensors import State
from fluoroscope.models.hook_points import HookPoint

Batch = dict[HookPoint, Float[Tensor, "batch d_model"]]


class ActivationStream:
    """`for batch in stream` gives `{point: float32 [batch_size, d_model]}`, rows aligned.

    Each epoch is a permutation of the source's rows; batches run on across epochs, and all
    are full. Memory is one buffer of `buffer_rows` rows (two where it reads ahead) in the
    source's dtype on `device`, whatever the number of samples.
    """

    def __init__(
        self,
        source: ActivationSource,
        points: Sequence[HookPoint],
        *,
        batch_size: int,
        seed: int,
        n_samples: int,
        buffer_rows: int = 65536,
        device: torch.device | str = "cpu",
        read_ahead: bool = False,
    ) -> None:
        self.points = sorted(points)
        self.batch_size = batch_size
        self.n_rows = int(np.sum(source.chunk_rows))
        """Rows of one epoch."""
        self.n_batches = n_samples // batch_size
        self.epochs = n_samples / max(self.n_rows, 1)
        """Passes over the source's rows that all batches make."""
        self.position = 0
        """Batches given so far."""
        if self.n_rows == 0 or self.n_batches == 0:
            raise ConfigError(
                f"A stream needs rows and a whole batch: the source has {self.n_rows} rows, and "
                f"n_samples={n_samples} makes {self.n_batches} batches of {batch_size}."
            )
        self._source, self._seed, self._device = source, seed, device
        largest = int(np.max(source.chunk_rows))
        self._chunks_in_group = max(buffer_rows // largest, 1)
        self._plan: _Plan | None = None
        self._group: _Group | None = None
        can_read_ahead = read_ahead and source.can_read_ahead
        self._reader = ThreadPoolExecutor(max_workers=1) if can_read_ahead else None
        self._coming: tuple[tuple[int, int], Future[_Group]] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """From the present position to the end."""
        while self.position < self.n_batches:
            yield self.next_batch()

    def next_batch(self) -> Batch:
        """Raises `StopIteration` when all `n_batches` have been given."""
        if self.position >= self.n_batches:
            raise StopIteration
        at = self.position * self.batch_size
        stop = at + self.batch_size
        pieces: list[Batch] = []
        while at < stop:
            group, offset = self._group_at(at)
            n_taken = min(stop - at, len(group.order) - offset)
            pieces.append(group.rows_at(offset, offset + n_taken))
            at += n_taken
        self.position += 1
        if len(pieces) == 1:
            return pieces[0]
        return {point: torch.cat([piece[point] for piece in pieces]) for point in self.points}

    def seek(self, position: int) -> None:
        """As if `position` batches had been given; loads nothing before it is needed."""
        if not 0 <= position <= self.n_batches:
            raise IndexError(f"Batch {position} of a stream of {self.n_batches}.")
        self.position = position

    def state(self) -> State:
        return {"position": self.position, "setting": self._setting()}

    def load(self, state: State) -> None:
        if state["setting"] != self._setting():
            raise MismatchError(
                f"The saved stream was made with {state['setting']}, this one with "
                f"{self._setting()}. Go on with the settings that it was started with."
            )
        self.seek(state["position"])

    def _setting(self) -> dict[str, int]:
        return {
            "batch_size": self.batch_size,
            "chunks_in_group": self._chunks_in_group,
            "rows": self.n_rows,
            "seed": self._seed,
        }

    def _group_at(self, row: int) -> tuple["_Group", int]:
        epoch, within = divmod(row, self.n_rows)
        if self._plan is None or self._plan.epoch != epoch:
            self._plan = self._make_plan(epoch)
        number = int(np.searchsorted(self._plan.ends, within, side="right"))
        if self._group is None or self._group.key != (epoch, number):
            # Freed before the next is loaded, so that memory holds one.
            self._group = None
            self._group = self._take_group(self._plan, number)
        begin = int(self._plan.ends[number - 1]) if number else 0
        return self._group, within - begin

    def _take_group(self, plan: "_Plan", number: int) -> "_Group":
        if self._reader is None:
            return self._load_group(plan, number)
        coming, self._coming = self._coming, None
        is_the_one = coming is not None and coming[0] == (plan.epoch, number)
        group = coming[1].result() if coming and is_the_one else self._load_group(plan, number)
        is_last = number + 1 == len(plan.ends)
        following = self._make_plan(plan.epoch + 1) if is_last else plan
        after = 0 if is_last else number + 1
        if following.epoch * self.n_rows < self.n_batches * self.batch_size:
            loading = self._reader.submit(self._load_group, following, after)
            self._coming = ((following.epoch, after), loading)
        return group

    def _make_plan(self, epoch: int) -> "_Plan":
        rows = np.asarray(self._source.chunk_rows)
        order = stream(self._seed, "chunks", epoch).permutation(len(rows))
        firsts = np.arange(0, len(rows), self._chunks_in_group)
        return _Plan(epoch, order, np.cumsum(np.add.reduceat(rows[order], firsts)))

    def _load_group(self, plan: "_Plan", number: int) -> "_Group":
        first = number * self._chunks_in_group
        chunks = plan.order[first : first + self._chunks_in_group].tolist()
        n_rows = int(np.asarray(self._source.chunk_rows)[chunks].sum())
        buffers: dict[HookPoint, Tensor] = {}
        at = 0
        for chunk in chunks:
            loaded = self._source.load_chunk(chunk, self.points)
            for point, rows in loaded.items():
                if point not in buffers:
                    buffers[point] = torch.empty(
                        n_rows, rows.shape[1], dtype=rows.dtype, device=self._device
                    )
                buffers[point][at : at + len(rows)] = rows
            at += len(loaded[self.points[0]])
        order = stream(self._seed, "rows", plan.epoch, number).permutation(n_rows)
        return _Group((plan.epoch, number), buffers, torch.from_numpy(order).to(self._device))


@dataclass(frozen=True)
class _Plan:
    """One epoch: chunks in their order, and where each group of them ends, in rows."""

    epoch: int
    order: Int[np.ndarray, " chunks"]
    ends: Int[np.ndarray, " groups"]


@dataclass(frozen=True)
class _Group:
    key: tuple[int, int]
    buffers: dict[HookPoint, Tensor]
    order: Int[Tensor, " rows"]

    def rows_at(self, start: int, stop: int) -> Batch:
        chosen = self.order[start:stop]
        return {point: rows[chosen].float() for point, rows in self.buffers.items()}


def rows_in_order(
    source: ActivationSource,
    points: Sequence[HookPoint],
    batch_size: int,
    n_rows: int | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """The first `n_rows` (all by default) in the source's own order; the last batch may be small.

    For evaluation: float32, memory for one chunk and one batch.
    """
    wanted = int(np.sum(source.chunk_rows)) if n_rows is None else n_rows
    left: Batch = {}
    for chunk in range(len(source.chunk_rows)):
        if wanted <= 0:
            break
        loaded = source.load_chunk(chunk, points)
        rows = {point: loaded[point][:wanted].to(device).float() for point in points}
        wanted -= len(rows[points[0]])
        if left:
            rows = {point: torch.cat([left[point], rows[point]]) for point in points}
        n_full = len(rows[points[0]]) // batch_size * batch_size
        for at in range(0, n_full, batch_size):
            yield {point: row[at : at + batch_size] for point, row in rows.items()}
        left = {point: row[n_full:] for point, row in rows.items()}
    if left and len(left[points[0]]):
        yield left
