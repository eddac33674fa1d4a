"""Documents of tokens -> windows of one length, with where each token comes from.

A packed window is filled from one document after another. Attention inside it crosses the
borders of documents, as in the training of most models. Windows of single documents are for
models that read a text from its first token on; they are mostly padding, so those of like length
are put side by side, and a reader cuts the padding that all of its windows have.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from fluoroscope.core.seeding import stream
from fluoroscope.data.tokenizing import StartTokens

COLUMNS = ("tokens", "document", "position", "is_start")
PADDING = -1

_BLOCK_WINDOWS, _GROUP_WINDOWS = 1024, 16
"""Windows that are sorted together, and of them those that stay together: a tile, by default."""

_TOKEN, _DOCUMENT, _POSITION, _IS_START = range(4)

Window = Int[np.ndarray, "4 context"]
Packed = Int[np.ndarray, "4 windows context"]


class Packer:
    """Takes documents in, gives full windows out; what is left waits for the next document."""

    def __init__(
        self, context: int, starts: StartTokens, padding_token: int, *, pack: bool = True
    ) -> None:
        self.context = context
        self.starts = starts
        self.padding_token = padding_token
        self.pack = pack
        self._waiting: list[Int[np.ndarray, "4 n"]] = []
        self._n_waiting = 0

    @property
    def n_waiting(self) -> int:
        """Tokens taken in and not yet given out; of windows of single documents, with padding."""
        return self._n_waiting

    def add(self, document: int, tokens: Sequence[int]) -> None:
        start = [] if self.starts.document is None else [self.starts.document]
        columns = np.empty((4, len(start) + len(tokens)), dtype=np.int32)
        columns[_TOKEN, : len(start)] = start
        columns[_TOKEN, len(start) :] = tokens
        columns[_DOCUMENT] = document
        columns[_POSITION] = np.arange(columns.shape[1])
        columns[_IS_START] = np.arange(columns.shape[1]) < len(start)
        self._waiting.append(columns)
        n_windows = -(-columns.shape[1] // self.context)
        self._n_waiting += columns.shape[1] if self.pack else n_windows * self.context

    def take(self, *, everything: bool = False) -> Packed:
        """The full windows; with `everything` also the last, filled up with padding. Windows of
        single documents are complete whenever they are taken.
        """
        if not self.pack:
            windows = [w for flow in self._waiting for w in self._cut(flow, everything=True)[0]]
            self._waiting, self._n_waiting = [], 0
            packed = self._stacked(windows)
            return packed[:, _by_length((packed[_DOCUMENT] != PADDING).sum(axis=1))]
        flow = np.concatenate([np.empty((4, 0), np.int32), *self._waiting], axis=1)
        windows, at = self._cut(flow, everything=everything)
        self._waiting = [flow[:, at:].copy()]
        self._n_waiting = flow.shape[1] - at
        return self._stacked(windows)

    def _cut(self, flow: Int[np.ndarray, "4 n"], *, everything: bool) -> tuple[list[Window], int]:
        """Windows from the beginning of `flow`, and how much of it they hold."""
        windows: list[Window] = []
        at = 0
        while flow.shape[1] - at >= self.context or (everything and at < flow.shape[1]):
            window, used = self._window(flow, at)
            windows.append(window)
            at += used
        return windows, at

    def _stacked(self, windows: list[Window]) -> Packed:
        return np.stack(windows, axis=1) if windows else np.empty((4, 0, self.context), np.int32)

    def _window(self, flow: Int[np.ndarray, "4 n"], at: int) -> tuple[Window, int]:
        window = np.empty((4, self.context), dtype=np.int32)
        start = self.starts.window
        n_start = int(start is not None and not flow[_IS_START, at])
        piece = flow[:, at : at + self.context - n_start]
        end = n_start + piece.shape[1]
        window[:, n_start:end] = piece
        window[:, end:] = np.array([[self.padding_token], [PADDING], [PADDING], [0]])
        if start is not None and n_start:
            window[:, 0] = (start, flow[_DOCUMENT, at], PADDING, 1)
        return window, piece.shape[1]


def _by_length(lengths: Int[np.ndarray, " windows"]) -> Int[np.ndarray, " windows"]:
    """An order in which windows of like length are neighbours, and any first part of which holds
    all lengths: whoever reads only so many tokens reads a fair sample.
    """
    order: list[np.ndarray] = [np.empty(0, np.int64)]
    for begin in range(0, len(lengths), _BLOCK_WINDOWS):
        block = np.argsort(lengths[begin : begin + _BLOCK_WINDOWS], kind="stable") + begin
        groups = [block[at : at + _GROUP_WINDOWS] for at in range(0, len(block), _GROUP_WINDOWS)]
        luck = stream(0, "windows of like length", begin)
        order += [groups[i] for i in luck.permutation(len(groups))]
    return np.concatenate(order)
