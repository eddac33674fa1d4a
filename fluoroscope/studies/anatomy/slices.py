"""Which windows of a text are a slice of it, and which tokens of them count."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.features.statistics import TEXT, Layout
from fluoroscope.studies.anatomy.settings import Slice

_BLOCK = 4096
_BLOCKS = 40
"""Units of a slice by which it is compared with another: enough for a test."""


@dataclass(frozen=True, eq=False)
class TextSlice:
    """Some windows of a text, each a sequence."""

    tokens: TokenStore
    split: Split
    windows: Int[np.ndarray, " q"]
    layout: Layout
    document: Int[np.ndarray, "q p"]
    """Of each token, counted from 0 within the slice; -1 where no text token is."""

    @property
    def n_documents(self) -> int:
        return int(self.document.max(initial=-1)) + 1

    @property
    def block(self) -> Int[np.ndarray, "q p"]:
        """Of each token the block that it counts in, from 0; -1 where no text token is.

        Blocks are consecutive sequences, at least as many as the longest document runs over, and
        40 blocks at most. Tokens of one document are not independent, nor are documents that are
        packed into one window and read each other; what lies in two blocks is, nearly.
        """
        n_each = max(self._longest, -(-len(self) // _BLOCKS))
        # What is left over belongs to the last.
        number = np.minimum(np.arange(len(self)) // n_each, max(len(self) // n_each - 1, 0))
        return np.where(self.document >= 0, number[:, None], -1)

    @property
    def _longest(self) -> int:
        """Sequences over which the longest document runs."""
        places = [np.unique(row[row >= 0]) for row in self.document]
        documents = np.concatenate([np.zeros(0, np.int64), *places])
        return int(np.bincount(documents.astype(np.int64)).max(initial=1))

    def __len__(self) -> int:
        return len(self.windows)

    def sequence(self, q: int) -> tuple[Int[Tensor, " p"], Bool[Tensor, " p"]]:
        """Tokens of sequence `q`, without padding, and which of them are text."""
        at = int(self.windows[q])
        tokens = self.tokens.windows(self.split, at, at + 1).tokens[0]
        return tokens, torch.from_numpy(self.layout.counted(TEXT)[q])[: len(tokens)]


def text_slices(
    tokens: TokenStore, split: Split, wanted: int, slices: Sequence[Slice]
) -> dict[Slice, TextSlice]:
    """The first and the last `wanted` windows; two slices that would overlap get a half each."""
    order = _in_order(tokens, split)
    n = min(wanted, len(order) // len(slices))
    if n == 0:
        raise CorpusError(
            f"The text has {len(order)} windows, which is too few for {len(slices)} slices of it. "
            "Give a longer corpus, a smaller corpus.context, or one slice (slices=[first])."
        )
    chosen: dict[Slice, np.ndarray] = {"first": order[:n], "last": order[len(order) - n :]}
    return {one: _slice(tokens, split, chosen[one]) for one in slices}


def _in_order(tokens: TokenStore, split: Split) -> Int[np.ndarray, " windows"]:
    """Windows as the text has them. A store has windows of single documents sorted by length,
    and its first ones would be a sample of lengths, not the beginning.
    """
    keys = [np.zeros((2, 0), np.int64)]
    for part in WindowRange(split, 0, tokens.n_windows(split)).tiles(_BLOCK):
        found = tokens.windows(part.split, part.start, part.stop)
        position = found.position[:, :2].numpy()
        # A start token that a window begins with has no position of its own.
        keys.append(np.stack([found.document[:, 0].numpy(), position.max(axis=1)]))
    document, position = np.concatenate(keys, axis=1)
    return np.lexsort((position, document))


def _slice(tokens: TokenStore, split: Split, windows: Int[np.ndarray, " q"]) -> TextSlice:
    """With a place for every position of the context, also of windows that are shorter."""
    shape = (len(windows), tokens.context)
    exists, is_text = np.zeros(shape, bool), np.zeros(shape, bool)
    document = np.full(shape, -1, np.int64)
    for q, at in enumerate(windows.tolist()):
        found = tokens.windows(split, at, at + 1)
        width = found.tokens.shape[1]
        exists[q, :width] = (found.document[0] >= 0).numpy()
        is_text[q, :width] = exists[q, :width] & ~found.is_start[0].numpy()
        document[q, :width] = found.document[0].numpy()
    layout = Layout(exists, is_text)
    text = layout.counted(TEXT)
    numbered = np.full(shape, -1, np.int64)
    numbered[text] = np.unique(document[text], return_inverse=True)[1]
    return TextSlice(tokens, split, windows, layout, numbered)
