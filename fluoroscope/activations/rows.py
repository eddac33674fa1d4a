"""A tile of windows -> rows: the positions that count, in the dtype that is kept, checked.

A store and a stream straight from a model both take their rows from here, so that they are
the same rows, bit for bit, for the same tiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.core.errors import NumericsError
from fluoroscope.data.token_store import Windows
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sinks import find_sinks


@dataclass(frozen=True)
class TileRows:
    """Row i of every hook point belongs to the i-th kept position, windows first."""

    rows: Mapping[HookPoint, Float[Tensor, "rows d_model"]]
    kept: Bool[Tensor, "windows context"]


def tile_rows(
    model: LanguageModel, windows: Windows, points: Sequence[HookPoint], config: ExtractConfig
) -> TileRows:
    """Raises `NumericsError` where a kept activation is not a number in the kept dtype."""
    model.check_positions_are_tokens("A store of activations")
    cache = capture(model, windows.tokens, points, windows.attention_mask)
    kept = windows.document >= 0
    if config.exclude_bos:
        kept = kept & ~windows.is_start
    if config.exclude_sinks:
        # A sink at one hook point is left out of all, so that rows stay aligned.
        sinks = [find_sinks(activations, kept).cpu() for activations in cache.values()]
        kept = kept & ~torch.stack(sinks).any(dim=0)
    place = kept.to(model.device)
    dtype = getattr(torch, config.dtype)
    rows = {point: activations[place].to(dtype) for point, activations in cache.items()}
    # One number decides for a whole tile; it is infinite or NaN if any of its parts is.
    totals = [row.sum(dtype=torch.float32).cpu() for row in rows.values()]
    if totals and not torch.stack(totals).isfinite().all():
        _name_the_bad_row(rows, windows.document[kept], config)
    return TileRows(rows, kept)


def _name_the_bad_row(
    rows: Mapping[HookPoint, Tensor], documents: Tensor, config: ExtractConfig
) -> None:
    for point, values in rows.items():
        is_bad = ~values.isfinite().all(dim=-1).cpu()
        if is_bad.any():
            first = int(is_bad.nonzero()[0])
            what = "a NaN" if values[first].isnan().any() else "an infinity"
            hint = (
                "float16 holds no number above 65504: use dtype=bfloat16 or float32."
                if config.dtype == "float16"
                else "Load the model in float32 if it is not; if it is, its weights are broken, or "
                "this document must be left out of the corpus."
            )
            raise NumericsError(
                f"The activations at {point} hold {what} in document {int(documents[first])}. "
                f"{hint}"
            )
