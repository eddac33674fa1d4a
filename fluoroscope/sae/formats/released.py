"""SAEs as others released them, brought to our conventions.

Releases encode activations as they are, `f_j = pre_j [pre_j > threshold_j]` with
`pre = x W_enc + b_enc`, and their decoder rows may have any norm n_j. Ours have unit norm, and
encode `x - b_dec`. So column j of the encoder, its bias and its threshold are multiplied by n_j,
decoder row j is divided by it, and `b_dec W_enc` is added to the bias. Which latents are active,
and what is reconstructed, stay as they were.

Axes: d_model, s latents.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, DamagedError, NumericsError
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.sae.topk import TopK, TopKConfig

Compared = Literal["latent", "contribution"]

S = TypeVar("S", bound=SparseAutoencoder)

_BLOCK = 1024


class ReleasedSAE(JumpReLU):
    """A JumpReLU SAE that others trained."""

    release_scale: Tensor
    """[s] Our latent divided by the release's. Ours is in the units of activations (the norm of
    what the latent adds to the reconstruction); numbers that were computed with the release's
    own formula, such as published means of latents, are multiplied by this. It is not saved."""


class ReleasedTopK(TopK):
    """A TopK SAE that others trained."""

    release_scale: Tensor
    """As that of `ReleasedSAE`."""


@torch.no_grad()
def released_sae(
    where: object,
    W_enc_T: Float[Tensor, "s d_model"],
    b_enc: Float[Tensor, " s"],
    W_dec: Float[Tensor, "s d_model"],
    b_dec: Float[Tensor, " d_model"],
    threshold: Float[Tensor, " s"],
    *,
    compared: Compared = "latent",
    unit: float = 1.0,
) -> ReleasedSAE:
    """From weights that take raw activations and give them back, `f` as above.

    `compared` with the threshold is `f_j` or, as in our own latents, `n_j f_j`. `unit` is what
    one unit of the release's latents is in those of `f`. The matrices are overwritten: a copy of
    them is gigabytes.
    """
    d_sae, d_model = W_enc_T.shape
    norm = _row_norms(W_dec)
    # One latent only: drawing weights at random that are replaced at once takes a minute for many.
    sae = ReleasedSAE(JumpReLUConfig(d_model=d_model, d_sae=1, target_l0=None))
    sae.config = JumpReLUConfig(d_model=d_model, d_sae=d_sae, target_l0=None)
    _fill(sae, W_enc_T, b_enc, W_dec, b_dec, norm)
    own_threshold = threshold if compared == "contribution" else threshold.double() * norm
    sae.threshold = nn.Parameter(own_threshold.to(W_enc_T))
    sae.register_buffer("release_scale", (norm * unit).to(W_enc_T), persistent=False)
    return _checked(where, sae)


@torch.no_grad()
def released_topk(
    where: object,
    W_enc_T: Float[Tensor, "s d_model"],
    b_enc: Float[Tensor, " s"],
    W_dec: Float[Tensor, "s d_model"],
    b_dec: Float[Tensor, " d_model"],
    k: int,
    *,
    compared: Compared = "latent",
) -> ReleasedTopK:
    """As `released_sae`, with the `k` largest of what is `compared` in the place of a threshold.

    Latents that are compared as they are cannot each be multiplied by a norm of its own. Then the
    rows' norms must agree within 1 %, as those of trained SAEs do, and one factor is for all;
    `ConfigError` otherwise.
    """
    d_sae, d_model = W_enc_T.shape
    norm = _row_norms(W_dec)
    if compared == "latent":
        low, high = float(norm.min()), float(norm.max())
        if high > 1.01 * low:
            raise ConfigError(
                f"{where} keeps the {k} largest latents before they are multiplied by the norms of "
                f"their decoder rows, which lie between {low:.3g} and {high:.3g}. Latents in units "
                "of activations would be others. Name an SAE with rows of one norm, or one that "
                "compares what latents write (rescale_acts_by_decoder_norm)."
            )
        norm = norm.median().expand(d_sae)
    sae = ReleasedTopK(TopKConfig(d_model=d_model, d_sae=1, k=1))
    sae.config = build(TopKConfig, {"d_model": d_model, "d_sae": d_sae, "k": k})
    _fill(sae, W_enc_T, b_enc, W_dec, b_dec, norm)
    # Where contributions are compared, they are also what the release gives as its latents.
    scale = torch.ones_like(norm) if compared == "contribution" else norm
    sae.register_buffer("release_scale", scale.to(W_enc_T, copy=True), persistent=False)
    return _checked(where, sae)


def encoded_bias(
    W_enc_T: Float[Tensor, "s d_model"], b_dec: Float[Tensor, " d_model"]
) -> Float[Tensor, " s"]:
    """`b_dec W_enc` in float64, without a copy of the matrix."""
    return torch.cat([block.double() @ b_dec.double() for block in W_enc_T.split(_BLOCK)])


def _row_norms(W_dec: Float[Tensor, "s d_model"]) -> Float[Tensor, " s"]:
    return torch.cat([block.double().norm(dim=-1) for block in W_dec.split(_BLOCK)])


def _fill(
    sae: SparseAutoencoder,
    W_enc_T: Float[Tensor, "s d_model"],
    b_enc: Float[Tensor, " s"],
    W_dec: Float[Tensor, "s d_model"],
    b_dec: Float[Tensor, " d_model"],
    norm: Float[Tensor, " s"],
) -> None:
    # A latent that writes nothing has no direction, and is zero in units of what it writes.
    W_dec.div_(norm.to(W_dec).clamp(min=torch.finfo(W_dec.dtype).tiny).unsqueeze(-1))
    W_enc_T.mul_(norm.to(W_enc_T).unsqueeze(-1))
    shift = encoded_bias(W_enc_T, b_dec)
    sae.W_enc_T, sae.W_dec = nn.Parameter(W_enc_T), nn.Parameter(W_dec)
    sae.b_enc = nn.Parameter((b_enc.double() * norm + shift).to(W_enc_T))
    sae.b_dec = nn.Parameter(b_dec.to(W_enc_T))


def _checked(where: object, sae: S) -> S:
    for name, tensor in sae.state_dict().items():
        if not tensor.isfinite().all():
            raise NumericsError(f"{where}: {name} has numbers that are not finite.")
    return sae.eval()


def check_shapes(
    where: object, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises `DamagedError` for the first tensor that is missing or of another shape."""
    for name, shape in expected.items():
        if name not in tensors:
            raise DamagedError(
                f"{where} has no tensor {name}; it has {', '.join(sorted(tensors)) or 'none'}. "
                "Fetch it again, or name an SAE of a release that is read."
            )
        if tuple(tensors[name].shape) != shape:
            raise DamagedError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}, and should have {shape}."
            )
