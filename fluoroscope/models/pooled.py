"""Activations behind generated tokens, pooled as they come: one vector a row, never all."""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.texts import Capture

Rows = Int[Tensor, " some"] | slice
Seen = dict[str, Float[Tensor, "rows width"]]


def names_by_point(captures: Mapping[str, Capture]) -> dict[HookPoint, list[str]]:
    """Hook point -> the captures that look at it."""
    points: dict[HookPoint, list[str]] = {}
    for name, capture in captures.items():
        points.setdefault(capture.point, []).append(name)
    return points


def read_once(captures: Mapping[str, Capture], rows: Tensor) -> Seen:
    """What each capture reads of the same rows; an encoder that several share is run once."""
    done: dict[int, Tensor] = {id(None): rows}
    found = {}
    for name, capture in captures.items():
        if capture.read is not None and id(capture.read) not in done:
            done[id(capture.read)] = capture.read(rows)
        found[name] = done[id(capture.read)]
    return found


class PooledCaptures:
    """The captures of one generation; rows are places of the decoding batch."""

    def __init__(self, captures: Mapping[str, Capture]) -> None:
        self._captures = dict(captures)
        self._n_rows = 0
        self._seen: Seen = {}
        self._pooled: dict[str, Tensor] = {}
        self._counts = torch.empty(0)

    def start(self, n_rows: int, device: torch.device) -> None:
        """Makes room for `n_rows` rows; the widths are known when the first are seen."""
        self._n_rows = n_rows
        self._counts = torch.zeros(n_rows, device=device)

    @property
    def hooks(self) -> Mapping[HookPoint, Hook]:
        return {
            point: partial(self._see, names)
            for point, names in names_by_point(self._captures).items()
        }

    def take(self) -> Seen:
        """What the last pass showed at every row's newest token."""
        return dict(self._seen)

    def clear(self, rows: Rows) -> None:
        self._counts[rows] = 0

    def add(self, rows: Rows, seen: Seen, counts: Bool[Tensor, " some"]) -> None:
        """Adds one position of each row, where it counts."""
        if not self._captures:
            return
        is_first = (self._counts[rows] == 0)[:, None]
        for name, values in seen.items():
            pooled = self._buffer(name, values)
            old, new = pooled[rows], values.to(pooled.dtype)
            match self._captures[name].pool:
                case "max":
                    joined = torch.maximum(old, new)
                case "mean":
                    joined = old + new
                case "last":
                    joined = new
            joined = torch.where(is_first, new, joined)
            pooled[rows] = torch.where(counts[:, None], joined, old)
        self._counts[rows] += counts

    def move(self, sources: Int[Tensor, " some"], to: Int[Tensor, " some"]) -> None:
        self._counts[to] = self._counts[sources]
        for pooled in self._pooled.values():
            pooled[to] = pooled[sources]

    def result(self, row: int) -> dict[str, Float[Tensor, " width"]]:
        """The pooled value of each capture; zeros for a text without tokens."""
        found = {}
        n = float(self._counts[row])
        for name, pooled in self._pooled.items():
            value = pooled[row].clone() if n else torch.zeros_like(pooled[row])
            is_mean = self._captures[name].pool == "mean"
            found[name] = value / n if n and is_mean else value
        return found

    def _see(self, names: list[str], value: Tensor) -> None:
        # The last column is every row's newest token, whatever the padding before it.
        # A copy, which does not hold on to the whole pass.
        newest = value[:, -1].clone()
        self._seen |= read_once({name: self._captures[name] for name in names}, newest)

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        if name not in self._pooled:
            dtype = torch.promote_types(like.dtype, torch.float32)
            self._pooled[name] = like.new_zeros((self._n_rows, like.shape[-1]), dtype=dtype)
        return self._pooled[name]
