"""One forward pass -> the activations at any hook points."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel


class ActivationCache(Mapping[HookPoint, Tensor]):
    """Hook point -> activations [batch, position, d_model] of one pass; `"2.mlp_out"` works too."""

    def __init__(self, activations: Mapping[HookPoint, Tensor]) -> None:
        self._activations = dict(sorted(activations.items()))

    def __getitem__(self, point: HookPoint | str) -> Float[Tensor, "batch position d_model"]:
        return self._activations[HookPoint(point) if isinstance(point, str) else point]

    def __iter__(self) -> Iterator[HookPoint]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)


def capture(
    model: LanguageModel,
    tokens: Int[Tensor, "batch position"],
    points: Sequence[HookPoint | str],
    attention_mask: Int[Tensor, "batch position"] | None = None,
) -> ActivationCache:
    """All `points` in one pass without gradients, which ends behind the deepest of them.

    Nothing is copied: the tensors are the network's own, on its device and in its dtype.
    """
    captured: dict[HookPoint, Tensor] = {}
    wanted = [HookPoint(point) if isinstance(point, str) else point for point in points]
    hooks = {point: partial(captured.__setitem__, point) for point in wanted}
    model.run_until(hooks, tokens, attention_mask)
    return ActivationCache(captured)
