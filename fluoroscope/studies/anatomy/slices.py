"""Which windows of a text are a slice of it, and which tokens of them count."""

from collections.abc import Sequence

import numpy as np

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.features.statistics import Layout
from fluoroscope.studies.anatomy.settings import Slice


def slice_ranges(
    n_windows: int, wanted: int, slices: Sequence[Slice], split: Split = "train"
) -> dict[Slice, WindowRange]:
    """The first and the last `wanted` windows; two slices that would overlap get a half each."""
    n = min(wanted, n_windows // len(slices))
    if n == 0:
        raise CorpusError(
            f"The text has {n_windows} windows, which is too few for {len(slices)} slices of it. "
            "Give a longer corpus, a smaller corpus.context, or one slice (slices=[first])."
        )
    starts: dict[Slice, int] = {"first": 0, "last": n_windows - n}
    return {one: WindowRange(split, starts[one], starts[one] + n) for one in slices}


def layout_of(tokens: TokenStore, windows: WindowRange) -> Layout:
    """A place for every position of the context, also of windows that are shorter."""
    found = tokens.windows(windows.split, windows.start, windows.stop)
    shape = (len(windows), tokens.context)
    exists, is_text = np.zeros(shape, bool), np.zeros(shape, bool)
    width = found.tokens.shape[1]
    exists[:, :width] = (found.document >= 0).numpy()
    is_text[:, :width] = exists[:, :width] & ~found.is_start.numpy()
    return Layout(exists, is_text)
