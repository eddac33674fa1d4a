"""Where an `ActivationStream` takes its rows from: a store on disk, or the model itself."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped
from torch import Tensor

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.rows import tile_rows
from fluoroscope.activations.store import ActivationStore
from fluoroscope.core.errors import ConfigError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel


@runtime_checkable
class ActivationSource(Protocol):
    """Rows in chunks; the rows of a chunk are read, or computed, together."""

    @property
    def d_model(self) -> int: ...

    @property
    def chunk_rows(self) -> Int[np.ndarray, " chunks"]:
        """Rows of each chunk, known before any is loaded."""
        ...

    @property
    def can_read_ahead(self) -> bool:
        """Whether a thread may load a chunk while others work."""
        ...

    def load_chunk(
        self, chunk: int, points: Sequence[HookPoint]
    ) -> dict[HookPoint, Shaped[Tensor, "rows d_model"]]: ...


class StoreSource:
    """The rows of a split of a store; a chunk is a tile of the extraction."""

    can_read_ahead = True

    def __init__(self, store: ActivationStore, split: Split = "train") -> None:
        self.d_model = store.d_model
        self.chunk_rows = store.tile_rows(split)
        self._store = store
        self._split: Split = split
        self._ends = np.cumsum(self.chunk_rows)

    def load_chunk(
        self, chunk: int, points: Sequence[HookPoint]
    ) -> dict[HookPoint, Shaped[Tensor, "rows d_model"]]:
        stop = int(self._ends[chunk])
        start = stop - int(self.chunk_rows[chunk])
        return {point: self._store.read(point, self._split, start, stop) for point in points}


class ModelSource:
    """The rows that a store of these windows would hold, computed when they are asked for.

    Each epoch runs the model anew: no disk, but a forward pass for every row of every epoch.
    """

    # Hooks belong to the network, so a thread's passes would meet those of an evaluation.
    can_read_ahead = False

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenStore,
        split: Split = "train",
        *,
        config: ExtractConfig,
        n_windows: int | None = None,
    ) -> None:
        if config.exclude_sinks:
            raise ConfigError(
                "exclude_sinks needs a store: a stream straight from the model must know its rows "
                "before it computes them. Extract first, or set exclude_sinks=false."
            )
        tokens.check_tokenizer(model.tokenizer)
        self.d_model = model.d_model
        self._model, self._tokens, self._config = model, tokens, config
        stop = tokens.n_windows(split) if n_windows is None else n_windows
        self._tiles = list(WindowRange(split, 0, stop).tiles(config.tile_windows))
        counts = tokens.counts(split)[:stop, int(config.exclude_bos)]
        self.chunk_rows = np.add.reduceat(counts, [tile.start for tile in self._tiles])

    def load_chunk(
        self, chunk: int, points: Sequence[HookPoint]
    ) -> dict[HookPoint, Shaped[Tensor, "rows d_model"]]:
        tile = self._tiles[chunk]
        windows = self._tokens.windows(tile.split, tile.start, tile.stop)
        return dict(tile_rows(self._model, windows, points, self._config).rows)
