"""Dense statements of what `sparse_kernels.py` computes: the truth it is tested against.

Axes: n rows (tokens), s latents, d model width. Nothing here is fast.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def top_k(pre: Float[Tensor, "n s"], k: int) -> Float[Tensor, "n s"]:
    """Each row keeps its `k` largest entries, and of those the positive ones."""
    values, indices = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, indices, values.relu())


def batch_top_k(pre: Float[Tensor, "n s"], k: int) -> Float[Tensor, "n s"]:
    """The batch keeps its `n k` largest entries, and of those the positive ones."""
    flat = pre.flatten()
    values, indices = flat.topk(pre.shape[0] * k)
    return torch.zeros_like(flat).scatter(0, indices, values.relu()).view_as(pre)


def above(pre: Float[Tensor, "n s"], floor: Float[Tensor, " s"]) -> Float[Tensor, "n s"]:
    """Entries strictly above their latent's `floor`."""
    return torch.where(pre > floor, pre, torch.zeros_like(pre))


def decode(latents: Float[Tensor, "n s"], W_dec: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
    """Sum of decoder rows, weighted by the latents."""
    return latents @ W_dec
