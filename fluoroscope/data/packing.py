"""Documents of tokens -> windows of one length, with where each token comes from.

A window is filled from one document after another. Attention inside a window crosses the
borders of documents, as in the training of most models.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from fluoroscope.data.tokenizing import StartTokens

COLUMNS = ("tokens", "document", "position", "is_start")
PADDING = -1

_TOKEN, _DOCUMENT, _POSITION, _IS_START = range(4)

Packed = Int[np.ndarray, "4 windows context"]


class Packer:
    """Takes documents in, gives full windows out; what is left waits for the next document."""

    def __init__(self, context: int, starts: StartTokens, padding_token: int) -> None:
        self.context = context
        self.starts = starts
        self.padding_token = padding_token
        self._waiting: list[Int[np.ndarray, "4 n"]] = []
        self._n_waiting = 0

    @property
    def n_waiting(self) -> int:
        """Tokens taken in and not yet given out."""
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
        self._n_waiting += columns.shape[1]

    def take(self, *, everything: bool = False) -> Packed:
        """The full windows; with `everything` also the last, filled up with padding."""
        flow = np.concatenate([np.empty((4, 0), np.int32), *self._waiting], axis=1)
        windows: list[Int[np.ndarray, "4 context"]] = []
        at = 0
        while flow.shape[1] - at >= self.context or (everything and at < flow.shape[1]):
            window, used = self._window(flow, at)
            windows.append(window)
            at += used
        self._waiting = [flow[:, at:].copy()]
        self._n_waiting = flow.shape[1] - at
        return np.stack(windows, axis=1) if windows else np.empty((4, 0, self.context), np.int32)

    def _window(self, flow: Int[np.ndarray, "4 n"], at: int) -> tuple[np.ndarray, int]:
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
