"""How much a matrix can lengthen a vector: its spectral norm, by power iteration.

Every call starts from the same vector and takes the same steps, and nothing is kept: a training
that is resumed, or looked at while it runs, goes on bit by bit as one that is left alone. A kept
vector would need fewer steps and could do neither. What is found is never above the true norm;
random matrices of 64 to 768 rows come out at 96 % of theirs or more, others closer.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.connections.base import (
    at_least_float32,
    full_precision,
)

N_POWER_STEPS = 30


def spectral_norm(matrix: Float[Tensor, "*h a b"]) -> Float[Tensor, "*h"]:
    """The largest singular value, with gradients (those of fixed singular vectors)."""
    with full_precision(matrix):
        matrix = at_least_float32(matrix)
        with torch.no_grad():
            right = start(matrix.shape[-1], matrix).expand(*matrix.shape[:-2], -1)[..., None]
            left = right
            for _ in range(N_POWER_STEPS):
                left = _unit(matrix @ right)
                right = _unit(matrix.mT @ left)
        return (left.mT @ matrix @ right)[..., 0, 0]


def bounded(matrix: Float[Tensor, "*h a b"], largest: float | None) -> Float[Tensor, "*h a b"]:
    """`C / max(1, sigma(C) / largest)`; as it is where `largest` is None."""
    if largest is None:
        return matrix
    shrink = (spectral_norm(matrix) / largest).clamp(min=1)
    return matrix / shrink[..., None, None].to(matrix.dtype)


def start(length: int, like: Tensor) -> Float[Tensor, " length"]:
    """A fixed vector of norm 1 in which no simple pattern is: cos(1), cos(4), cos(9)..."""
    places = torch.arange(1, length + 1, dtype=torch.float64, device=like.device)
    return _unit(places.square().cos()[:, None])[:, 0].to(like.dtype)


def _unit(columns: Float[Tensor, "*h a 1"]) -> Float[Tensor, "*h a 1"]:
    tiny = torch.finfo(columns.dtype).tiny
    return columns / torch.linalg.vector_norm(columns, dim=-2, keepdim=True).clamp(min=tiny)
