"""STUB."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.token_store import TokenStore
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel


class ActivationSource(Protocol):
    d_model: int
    chunk_rows: Sequence[int]
    """Rows of each chunk; a chunk is what is read or computed at once."""

    def load_chunk(self, chunk: int, points: Sequence[HookPoint]) -> dict[HookPoint, Tensor]: ...


class StoreSource:
    def __init__(self, store: "ActivationStore", split: Split = "train") -> None: ...


class ModelSource:
    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenStore,
        split: Split = "train",
        *,
        config: ExtractConfig,
        n_windows: int | None = None,
    ) -> None: ...
