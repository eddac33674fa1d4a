"""Activations at the last position of many prompts, at all hook points in one pass.

Prompts of similar length go through together, padded on the right, where causal attention does
not look. Which prompts share a tile depends on the list alone, so the same list gives the same
bits; another list differs by floating-point rounding.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.activations.tiles import length_tiles
from fluoroscope.core.errors import NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens

TILE_TOKENS = 8192
"""Tokens, padding among them, that go through at once."""


def last_activations(
    model: LanguageModel,
    prompts: Sequence[str | tuple[int, ...]],
    points: Sequence[HookPoint],
    tile_tokens: int = TILE_TOKENS,
    on_tile: Callable[[int, int], None] | None = None,
) -> dict[HookPoint, Float[Tensor, "prompts d_model"]]:
    """On the CPU, in the network's dtype; row i is of prompt i. `on_tile` gets how many prompts
    are done, and of how many.

    Raises `ModelError` for a prompt that does not fit, and `NumericsError` for a NaN or infinity.
    """
    model.check_positions_are_tokens("The last position of a prompt")
    tokens = [prompt_tokens(model, prompt) for prompt in prompts]
    found = {
        point: torch.zeros(len(tokens), model.width(point), dtype=model.dtype) for point in points
    }
    done = 0
    for rows in length_tiles([len(one) for one in tokens], tile_tokens):
        for point, values in _read(model, [tokens[row] for row in rows], points).items():
            found[point][rows] = values
        done += len(rows)
        if on_tile is not None:
            on_tile(done, len(tokens))
    for point, values in found.items():
        is_bad = ~values.isfinite().all(dim=-1)
        if bool(is_bad.any()):
            raise NumericsError(
                f"The activations at {point} at the end of prompt {int(is_bad.nonzero()[0])} are "
                f"not finite in {model.dtype}; load the model in float32 or bfloat16."
            )
    return found


@torch.no_grad()
def _read(
    model: LanguageModel, tokens: Sequence[tuple[int, ...]], points: Sequence[HookPoint]
) -> dict[HookPoint, Float[Tensor, "rows d_model"]]:
    width = max(map(len, tokens))
    ids = torch.zeros(len(tokens), width, dtype=torch.int64)
    mask: Int[Tensor, "rows width"] = torch.zeros_like(ids)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = torch.tensor(one)
        mask[row, : len(one)] = 1
    last = mask.sum(dim=1) - 1
    captured: dict[HookPoint, Tensor] = {}

    def keep(point: HookPoint, value: Tensor) -> None:
        rows = torch.arange(len(tokens), device=value.device)
        captured[point] = value[rows, last.to(value.device)].cpu()

    hooks = {point: lambda value, p=point: keep(p, value) for point in points}
    model.run_until(hooks, ids.to(model.device), mask.to(model.device))
    return captured
