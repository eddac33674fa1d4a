"""SAEs whose latent is its pre-activation where that exceeds a per-latent threshold.

Inference of JumpReLU and BatchTopK is this, and ReLU is its special case of zero: each latent
can be computed alone.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.sparse_kernels import SparseLatents, encode_sparse, select_above


class ThresholdedSAE(SparseAutoencoder):
    """Needs a `threshold` per latent, as a parameter or a buffer."""

    threshold: Tensor

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n s"]:
        pre = self.pre_activations(x)
        return pre * (pre > self.threshold)

    def sparse_encode(self, x: Float[Tensor, "n d_model"]) -> SparseLatents:
        def select(pre: Tensor) -> SparseLatents:
            return select_above(pre, self.threshold.detach())

        return encode_sparse(x, self.W_enc_T, self.b_enc, self.b_dec, select)

    def encode_latents(
        self, x: Float[Tensor, "*n d_model"], latents: Int[Tensor, " m"]
    ) -> Float[Tensor, "*n m"]:
        pre = (x - self.b_dec) @ self.W_enc_T[latents].T + self.b_enc[latents]
        return pre * (pre > self.threshold[latents])

    @torch.no_grad()
    def scale_latents(self, factor: float) -> None:
        super().scale_latents(factor)
        self.threshold.mul_(factor)

    @torch.no_grad()
    def fold_scale(self, scale: float) -> "ThresholdedSAE":
        super().fold_scale(scale)
        self.threshold.div_(scale)
        return self


@torch.no_grad()
def threshold_for_l0(sae: SparseAutoencoder, rows: Float[Tensor, "n d_model"], l0: float) -> float:
    """The one positive threshold above which the rows have `l0` active latents on average."""
    n_kept = min(max(1, round(l0 * len(rows))), len(rows) * sae.d_sae)
    # Blocks bound the memory; the overall n_kept largest are among each block's n_kept largest.
    candidates = rows.new_empty(0)
    for block in rows.split(max(1, 2**24 // sae.d_sae)):
        pre = sae.pre_activations(block).flatten()
        candidates = torch.cat([candidates, pre])
        if len(candidates) > n_kept:
            candidates = candidates.topk(n_kept, sorted=False).values
    return max(float(candidates.min()), torch.finfo(rows.dtype).tiny)
