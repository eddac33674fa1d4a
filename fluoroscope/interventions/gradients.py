"""How a score of the next token changes with the activations at a prompt's last position.

The prompt before that position is read once (`Screen`), so a backward pass is one through a
single token, whatever the length of the prompt; all hook points get their gradients from it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.interventions.screening import Screen
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.prefill import Job, prefill

Score = Callable[[Float[Tensor, "rows vocab"]], Float[Tensor, " rows"]]
"""From logits to what is of interest; must be differentiable."""


class Gradients(NamedTuple):
    """What one backward pass gives, a row for every set of offsets."""

    activations: dict[HookPoint, Float[Tensor, "rows d_model"]]
    gradients: dict[HookPoint, Float[Tensor, "rows d_model"]]
    scores: Float[Tensor, " rows"]


def last_position_gradients(
    screen: Screen,
    points: Sequence[HookPoint],
    score: Score,
    offsets: Mapping[HookPoint, Float[Tensor, "rows d_model"]] | None = None,
) -> Gradients:
    """Activations with `offsets` added (by default none, one row), and gradients of each row's
    score with respect to them.
    """
    screen.check_unchanged()
    offsets = offsets or {}
    n_rows = max((len(rows) for rows in offsets.values()), default=1)
    n = len(screen.prompt)
    seen: dict[HookPoint, Tensor] = {}

    def hook_at(point: HookPoint) -> Callable[[Tensor], Tensor]:
        def hook(value: Tensor) -> Tensor:
            offset = offsets.get(point)
            moved = value if offset is None else value + offset[:, None].to(value)
            # The weights may take no gradients; then the first point is where they begin.
            seen[point] = moved if moved.requires_grad else moved.detach().requires_grad_()
            return seen[point]

        return hook

    hooks = {point: hook_at(point) for point in points}
    jobs = [Job(0, screen.prompt, n - 1, n, screen.prefix)] * n_rows
    with torch.enable_grad(), screen.reader.open(), screen.model.hooked(hooks):
        scores = score(prefill(screen.reader, jobs).logits)
        found = torch.autograd.grad(scores.sum(), [seen[point] for point in points])
    return Gradients(
        {point: seen[point].detach()[:, 0] for point in points},
        {point: gradient[:, 0] for point, gradient in zip(points, found, strict=True)},
        scores.detach(),
    )
