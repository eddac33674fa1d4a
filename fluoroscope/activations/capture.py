"""One forward pass -> the activations at any hook points."""

from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel


class ActivationCache(Mapping[HookPoint, Tensor]):
    """Hook point -> activations [batch, position, d_model] of one pass; `"2.mlp_out"` works too."""

    def __init__(self, activations: Mapping[HookPoint, Tensor]) -> None:
        self._activations = dict(activations)

    def __getitem__(self, point: HookPoint | str) -> Float[Tensor, "batch position d_model"]:
        key = HookPoint.parse(point) if isinstance(point, str) else point
        return self._activations[key]

    def __iter__(self) -> Iterator[HookPoint]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)


def capture(
    model: LanguageModel,
    tokens: Int[Tensor, "batch position"],
    points: Sequence[HookPoint],
    attention_mask: Bool[Tensor, "batch position"] | None = None,
) -> ActivationCache:
    """All `points` in one pass, which stops behind the deepest of them.

    Nothing is copied, and gradients flow where torch records them.
    """
    raise NotImplementedError
