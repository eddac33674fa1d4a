"""Single tensors out of checkpoint files, without the rest of them.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON: name ->
dtype, shape and place), and the tensors' bytes. So the header and the places wanted are enough:
of a file on disk by seeking, of one on the hub by HTTP ranges. PyTorch files, which are
pickles, are mapped into memory and only their tensors read.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fluoroscope.core.errors import DamagedError, ModelError
from fluoroscope.models.hub import fetch_file, stream_range
from fluoroscope.models.single_layer.layer_tensors import take
from fluoroscope.models.single_layer.layouts import Part

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_MAX_HEADER = 100_000_000
"""What the format allows, in bytes."""

_MAX_GAP = 1 << 20
"""Bytes that are rather read in passing than left out by asking the hub once more."""


class Run(NamedTuple):
    """Bytes of a file, and the memory they go to."""

    start: int
    target: memoryview


class File(Protocol):
    """Something with bytes in it."""

    name: str
    max_gap: int
    bytes_read: int

    def read(self, start: int, stop: int, runs: Sequence[Run]) -> None:
        """Reads `start` to `stop`, of which `runs` (by place) are wanted."""
        ...


class LocalFile:
    max_gap = 0

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.bytes_read = path, str(path), 0

    def read(self, start: int, stop: int, runs: Sequence[Run]) -> None:
        with self.path.open("rb") as file:
            for run in runs:
                file.seek(run.start)
                if file.readinto(run.target) != len(run.target):
                    raise damaged(self.name, f"it ends before byte {stop}")
                self.bytes_read += len(run.target)


class HubFile:
    """Falls back to the whole file, in the hub's cache, where a server cannot send parts."""

    max_gap = _MAX_GAP

    def __init__(self, repository: str, commit: str | None, file: str) -> None:
        self.repository, self.commit, self.file = repository, commit, file
        self.name, self.bytes_read = f"{file} of {repository}", 0
        self.local: LocalFile | None = None

    def read(self, start: int, stop: int, runs: Sequence[Run]) -> None:
        if self.local is None:
            position, wanted = start, list(runs)

            def receive(block: bytes) -> None:
                nonlocal position
                _scatter(block, position, wanted)
                position += len(block)
                self.bytes_read += len(block)

            if stream_range(self.repository, self.commit, self.file, start, stop, receive):
                return
            self.local = LocalFile(fetch_file(self.repository, self.commit, self.file))
            self.bytes_read += self.local.path.stat().st_size
        self.local.read(start, stop, runs)


class Entry(NamedTuple):
    """Where a tensor lies in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


class SafetensorsShard:
    """A checkpoint's file, of which a header and parts are read."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.header = read_header(file)
        self.names = tuple(self.header)

    @property
    def bytes_read(self) -> int:
        return self.file.bytes_read

    def read(self, parts: Mapping[str, tuple[str, Part]]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of `parts` (name -> name in the file, part), in the dtype of the file."""
        return read_parts(self.file, self.header, parts)


class PickledShard:
    """As `SafetensorsShard`, of a PyTorch file, which must be on disk whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes_read = path, 0
        try:
            self.found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # Pickles of other things, old formats, short files.
            raise damaged(str(path), f"no tensors can be read from it ({error})") from None
        self.names = tuple(self.found)

    def read(self, parts: Mapping[str, tuple[str, Part]]) -> Iterator[tuple[str, Tensor]]:
        for name, (place, part) in parts.items():
            if place not in self.found:
                raise damaged(str(self.path), f"it has no tensor {place}, which the index says")
            _check_shape(str(self.path), place, tuple(self.found[place].shape), part)
            # A copy, as what is mapped is not in memory yet.
            tensor = take(self.found[place], part).clone()
            self.bytes_read += tensor.nbytes
            yield name, tensor


def read_header(file: File) -> Mapping[str, Entry | str]:
    """Every tensor of a safetensors file; the format's name of a dtype that torch has not."""
    length = int.from_bytes(_bytes(file, 0, 8), "little")
    if length > _MAX_HEADER:
        raise damaged(file.name, f"its header would have {length} bytes")
    try:
        header = json.loads(_bytes(file, 8, 8 + length))
        header.pop("__metadata__", None)
        return {name: _entry(found, 8 + length) for name, found in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(file.name, f"its header cannot be read ({error})") from None


def read_parts(
    file: File, header: Mapping[str, Entry | str], parts: Mapping[str, tuple[str, Part]]
) -> Iterator[tuple[str, Tensor]]:
    """See `SafetensorsShard.read`.

    Those that lie side by side in a file of the hub are read together, others one by one.
    """
    plans = [
        _Plan(name, _checked(file, header, place, part), part)
        for name, (place, part) in parts.items()
    ]
    runs = sorted(((run, plan) for plan in plans for run in plan.runs()), key=lambda x: x[0].start)
    plans.clear()
    while runs:
        group = [runs.pop(0)]
        while runs and runs[0][0].start - _stop(group[-1][0]) <= file.max_gap:
            group.append(runs.pop(0))
        wanted = [run for run, _ in group]
        file.read(wanted[0].start, _stop(wanted[-1]), wanted)
        waiting = {plan.name for _, plan in runs}
        done = {plan.name: plan for _, plan in group if plan.name not in waiting}
        del group, wanted
        while done:
            name, plan = done.popitem()
            yield name, plan.tensor()


class _Plan:
    """Memory for a tensor, and which bytes of the file belong in it."""

    def __init__(self, name: str, entry: Entry, part: Part) -> None:
        self.name, self.entry, self.part = name, entry, part
        # Columns are not side by side in a file; they are cut when all is read.
        self.is_cut_later = part.cut is not None and part.cut.axis > 0
        self.shape = part.source_shape if self.is_cut_later else part.shape
        n_bytes = math.prod(self.shape) * entry.dtype.itemsize
        self.memory = torch.empty(n_bytes, dtype=torch.uint8)

    def runs(self) -> list[Run]:
        view, start = self.memory.numpy().data, self.entry.start
        if self.part.cut is None or self.is_cut_later:
            return [Run(start, view)]
        stride, first, last, _ = self.part.cut
        shape = self.part.source_shape
        row = math.prod(shape[1:]) * self.entry.dtype.itemsize
        size = (last - first) * row
        return [
            Run(start + (i * stride + first) * row, view[i * size : (i + 1) * size])
            for i in range(shape[0] // stride)
        ]

    def tensor(self) -> Tensor:
        tensor = self.memory.view(self.entry.dtype).reshape(self.shape)
        return take(tensor, self.part) if self.is_cut_later else tensor


def damaged(name: str, reason: str) -> DamagedError:
    return DamagedError(f"{name} is damaged: {reason}. Fetch or copy it again.")


def _bytes(file: File, start: int, stop: int) -> bytes:
    target = bytearray(stop - start)
    file.read(start, stop, [Run(start, memoryview(target))])
    return bytes(target)


def _entry(found: Any, payload: int) -> Entry | str:  # Any: JSON of a file.
    start, stop = found["data_offsets"]
    shape = tuple(found["shape"])
    dtype = _DTYPES.get(str(found["dtype"]))
    if dtype is None:
        return str(found["dtype"])
    if stop - start != math.prod(shape) * dtype.itemsize or start < 0:
        raise ValueError(f"{stop - start} bytes for the shape {list(shape)} of {found['dtype']}")
    return Entry(dtype, shape, payload + start)


def _checked(file: File, header: Mapping[str, Entry | str], place: str, part: Part) -> Entry:
    entry = header.get(place)
    if entry is None:
        raise damaged(file.name, f"it has no tensor {place}, which the index says it has")
    if isinstance(entry, str):
        raise ModelError(
            f"{place} in {file.name} is of the dtype {entry}, which is quantised or not a weight; "
            f"there are {', '.join(_DTYPES)}. Take a repository of weights that are not quantised."
        )
    _check_shape(file.name, place, entry.shape, part)
    return entry


def _check_shape(file: str, place: str, shape: tuple[int, ...], part: Part) -> None:
    if shape != part.source_shape:
        raise ModelError(
            f"{place} in {file} has the shape {list(shape)}; by its config.json it is "
            f"{list(part.source_shape)}. Take the config.json that belongs to these weights."
        )


def _stop(run: Run) -> int:
    return run.start + len(run.target)


def _scatter(block: bytes, start: int, runs: Sequence[Run]) -> None:
    """Copies what `block`, which begins at byte `start` of the file, has of each run."""
    view = memoryview(block)
    for run in runs:
        first, last = max(start, run.start), min(start + len(block), _stop(run))
        if first < last:
            run.target[first - run.start : last - run.start] = view[first - start : last - start]
