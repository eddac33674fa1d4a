"""STUB."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.activations.sources import ActivationSource
from fluoroscope.core.tensors import State
from fluoroscope.models.hook_points import HookPoint


class ActivationStream:
    """Shuffled batches `{point: float32 [batch_size, d_model]}`, rows aligned across points."""

    n_batches: int
    position: int
    """Batches given so far."""
    epochs: float
    """Passes over the source's rows that the whole stream makes."""

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
        prefetch: bool = False,
    ) -> None:
        raise NotImplementedError

    def next_batch(self) -> dict[HookPoint, Float[Tensor, "batch d_model"]]:
        """Raises StopIteration after `n_batches`."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[HookPoint, Tensor]]:
        """From the present position on."""
        raise NotImplementedError

    def seek(self, position: int) -> None:
        """So that `position` batches have been given; O(1)."""
        raise NotImplementedError

    def state(self) -> State:
        raise NotImplementedError

    def load(self, state: State) -> None:
        raise NotImplementedError


def rows_in_order(
    source: ActivationSource, points: Sequence[HookPoint], batch_size: int, n_rows: int | None = None
) -> Iterator[dict[HookPoint, Float[Tensor, "batch d_model"]]]:
    """The source's rows in their own order, float32; the last batch may be smaller."""
    raise NotImplementedError
