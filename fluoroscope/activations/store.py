"""STUB."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from jaxtyping import Float
from torch import Tensor

from fluoroscope.activations.extract_config import ExtractConfig, StoreDtype
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel, ModelIdentity


def write_activation_shard(
    model: LanguageModel,
    tokens: TokenStore,
    window_range: WindowRange,
    points: Sequence[HookPoint],
    config: ExtractConfig,
    folder: Path,
    sink: Sink = SILENT,
) -> None:
    """Fills `folder` with `<point>.safetensors`, `index.parquet` and `shard.json`.

    Name the folder `window_range.key`; `finish_store` takes its key from there.
    """
    raise NotImplementedError


def finish_store(folder: Path) -> "ActivationStore":
    """Writes the manifest over `folder/shards/*`."""
    raise NotImplementedError


def estimate_bytes(n_rows: int, n_points: int, d_model: int, dtype: StoreDtype) -> int:
    """Disk that a store of so many rows takes, with its index."""
    raise NotImplementedError


def check_disk(
    folder: Path, n_rows: int, n_points: int, d_model: int, dtype: StoreDtype
) -> None:
    """Raises `DoesNotFitError` when the disk of `folder` cannot hold such a store."""
    raise NotImplementedError


class ActivationStore:
    folder: Path
    points: list[HookPoint]
    d_model: int
    config: ExtractConfig
    sha256: str

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def n_rows(self, split: Split) -> int:
        raise NotImplementedError

    def read(
        self, point: HookPoint, split: Split, start: int, stop: int
    ) -> Float[Tensor, "rows d_model"]:
        """Rows `start` to `stop` of a split, in the store's dtype."""
        raise NotImplementedError

    def index(self, split: Split) -> pl.DataFrame:
        """row, document, position, token, window, place (in the window) of a split's rows."""
        raise NotImplementedError

    def check_model(self, identity: ModelIdentity) -> None:
        raise NotImplementedError
