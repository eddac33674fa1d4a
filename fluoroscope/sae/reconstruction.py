"""The part of a training step that sparse architectures share."""

from jaxtyping import Float
from torch import Tensor

from fluoroscope.sae.base import SparseAutoencoder, TrainingStep
from fluoroscope.sae.sparse_kernels import SparseLatents, decode_sparse


def reconstruction_step(
    sae: SparseAutoencoder, x: Float[Tensor, "n d_model"], latents: SparseLatents
) -> TrainingStep:
    """Mean squared error per row and dimension; with inputs scaled to unit variance per
    dimension, that is the fraction of variance unexplained.
    """
    reconstruction = decode_sparse(latents, sae.W_dec) + sae.b_dec
    loss = (reconstruction - x).square().mean()
    return TrainingStep(loss, reconstruction, latents.count())
