"""Attention sinks: the few tokens whose residual stream is far larger than all others.

Most are the first token of a row; they carry no content, and one of them outweighs hundreds
of ordinary tokens in any squared error (Xiao et al. 2023, arXiv:2309.17453; Sun et al. 2024,
arXiv:2402.17762).
"""

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor


def find_sinks(
    activations: Float[Tensor, "batch pos d_model"],
    attention_mask: Integer[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    factor: float = 10.0,
) -> Bool[Tensor, "batch pos"]:
    """Where a real token's norm exceeds `factor` times the median norm of the real tokens."""
    norms = activations.to(torch.promote_types(activations.dtype, torch.float32)).norm(dim=-1)
    is_real = torch.ones_like(norms, dtype=torch.bool)
    if attention_mask is not None:
        is_real = attention_mask.to(norms.device).bool()
    return is_real & (norms > factor * norms[is_real].median())
