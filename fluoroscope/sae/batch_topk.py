"""BatchTopK sparse autoencoder (Bussmann, Leask, Nanda 2024, arXiv:2412.06410).

In training the batch, not each token, keeps its `n k` largest latents, so that a token may
use more latents than another. At inference one threshold takes the batch's place. It is
measured on data with the final weights, so it is right however short the training was (a
running average of batch minima, as in the paper, is not).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.sae.base import TrainingStep
from fluoroscope.sae.reconstruction import reconstruction_step
from fluoroscope.sae.sparse_kernels import SparseLatents, encode_sparse, select_batch_top_k
from fluoroscope.sae.thresholded import ThresholdedSAE, threshold_for_l0
from fluoroscope.sae.topk import TopKConfig


class BatchTopKConfig(TopKConfig):
    """As TopK; `k` is the mean number of active latents of a token."""


class BatchTopK(ThresholdedSAE):
    architecture = "batch_topk"
    config_type = BatchTopKConfig
    config: BatchTopKConfig

    def __init__(self, config: BatchTopKConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.register_buffer("threshold", torch.zeros(config.d_sae))

    def training_step(self, x: Float[Tensor, "n d_model"], progress: float) -> TrainingStep:
        def select(pre: Tensor) -> SparseLatents:
            return select_batch_top_k(pre, self.config.k)

        latents = encode_sparse(x, self.W_enc_T, self.b_enc, self.b_dec, select)
        return reconstruction_step(self, x, latents)

    @torch.no_grad()
    def calibrate(self, rows: Float[Tensor, "n d_model"]) -> None:
        border = threshold_for_l0(self, rows, self.config.k)
        # The border itself is among the kept entries, and inference keeps what lies above.
        self.threshold.fill_(border).mul_(1 - 1e-6)
