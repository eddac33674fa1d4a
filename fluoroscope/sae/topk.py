"""TopK sparse autoencoder (Gao et al. 2024, arXiv:2406.04093).

Sparsity is set by construction: each token keeps its `k` largest latents, so there is no
sparsity penalty to tune and the L0 of a trained model is known in advance.
"""

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor

from fluoroscope.sae.base import SAEConfig, SparseAutoencoder, TrainingStep
from fluoroscope.sae.reconstruction import reconstruction_step
from fluoroscope.sae.sparse_kernels import SparseLatents, encode_sparse, select_top_k


class TopKConfig(SAEConfig):
    k: PositiveInt = 32
    """Latents that stay active for each token (the L0)."""

    @model_validator(mode="after")
    def _k_fits(self) -> "TopKConfig":
        if self.k > self.d_sae:
            raise ValueError(f"k={self.k} latents cannot be active out of d_sae={self.d_sae}.")
        return self


class TopK(SparseAutoencoder):
    architecture = "topk"
    config_type = TopKConfig
    config: TopKConfig

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n s"]:
        pre = self.pre_activations(x)
        values, indices = pre.topk(self.config.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())

    def sparse_encode(self, x: Float[Tensor, "n d_model"]) -> SparseLatents:
        def select(pre: Tensor) -> SparseLatents:
            return select_top_k(pre, self.config.k)

        return encode_sparse(x, self.W_enc_T, self.b_enc, self.b_dec, select)

    def encode_latents(
        self, x: Float[Tensor, "*n d_model"], latents: Int[Tensor, " m"]
    ) -> Float[Tensor, "*n m"]:
        # Which latents are among the k largest depends on all of them.
        return self.encode(x)[..., latents]

    def training_step(self, x: Float[Tensor, "n d_model"], progress: float) -> TrainingStep:
        return reconstruction_step(self, x, self.sparse_encode(x))
