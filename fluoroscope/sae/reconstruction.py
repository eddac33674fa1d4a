"""Reconstructions from sparse latents, and the training step that is made of one."""

from jaxtyping import Float
from torch import Tensor

from fluoroscope.sae.base import SparseAutoencoder, TrainingStep
from fluoroscope.sae.sparse_kernels import SparseLatents, decode_sparse


def reconstruction_of(
    sae: SparseAutoencoder, x: Float[Tensor, "n d_model"], latents: SparseLatents
) -> Float[Tensor, "n d_model"]:
    """What stands in for `x`: the sum of directions, and the mean over dimensions of `x` where the
    SAE `reads_centred`. As `sae(x)`, from latents that are known.
    """
    found = decode_sparse(latents, sae.W_dec) + sae.b_dec
    return found + x.mean(dim=-1, keepdim=True) if sae.reads_centred else found


def reconstruction_step(
    sae: SparseAutoencoder, x: Float[Tensor, "n d_model"], latents: SparseLatents
) -> TrainingStep:
    """Mean squared error per row and dimension; with inputs scaled to unit variance per
    dimension, that is the fraction of variance unexplained.
    """
    reconstruction = decode_sparse(latents, sae.W_dec) + sae.b_dec
    loss = (reconstruction - x).square().mean()
    return TrainingStep(loss, reconstruction, latents.count())
