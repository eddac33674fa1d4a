"""What every sparse autoencoder (SAE) has: parameters, encode, decode, one training step.

An SAE writes an activation x as a sparse sum of directions,
`x ~ b_dec + sum_j f_j(x) W_dec[j]` with `f(x) = act((x - b_dec) W_enc + b_enc)`,
where each architecture brings its own `act`. Decoder rows have unit norm, so `f_j` is in the
units of the activations.

Axes: *n any leading axes, d_model, s = d_sae latents, m chosen latents.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from fluoroscope.core.config import Config
from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.sparse_kernels import SparseLatents


class SAEConfig(Config):
    """Sizes that every architecture has; each adds its own settings."""

    d_model: PositiveInt
    """Width of the activations to encode."""

    d_sae: PositiveInt
    """Number of latents."""


class TrainingStep(NamedTuple):
    """What one batch gives."""

    loss: Float[Tensor, ""]
    """To be minimised: the reconstruction error in units of the input's variance, plus any
    sparsity penalty."""

    reconstruction: Float[Tensor, "n d_model"]

    active: Int[Tensor, " s"]
    """In how many rows of the batch each latent was active."""


class SparseAutoencoder(nn.Module, ABC):
    """A dictionary of directions and the encoder that finds which of them are present."""

    architecture: ClassVar[str]
    """Its name in the registry `fluoroscope.sae.architectures.SAES`."""

    config_type: ClassVar[type[SAEConfig]]

    def __init__(self, config: SAEConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.hook_point: HookPoint | None = None
        """Where the activations come from that it was trained on; set when it is loaded."""

        self.reads_centred = False
        """Whether it was trained on activations less their mean over dimensions (SAEs of networks
        with centred weights; see `formats/saelens.py`). It encodes activations with their mean
        all the same, and what `decode` gives is of what `part_read` leaves."""

        generator = torch_stream(seed, "sae", "start")
        directions = torch.randn(config.d_sae, config.d_model, generator=generator)
        self.W_dec = nn.Parameter(directions / directions.norm(dim=-1, keepdim=True))
        # Stored by latent, because every sparse gradient touches whole latents. It starts as the
        # decoder's transpose, which leaves few dead latents.
        self.W_enc_T = nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(config.d_model))

    @property
    def d_model(self) -> int:
        return self.config.d_model

    @property
    def d_sae(self) -> int:
        return self.config.d_sae

    @property
    def W_enc(self) -> Float[Tensor, "d_model s"]:
        return self.W_enc_T.T

    def pre_activations(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n s"]:
        return (x - self.b_dec) @ self.W_enc + self.b_enc

    @abstractmethod
    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n s"]:
        """All latents, dense and differentiable in everything."""

    @abstractmethod
    def sparse_encode(self, x: Float[Tensor, "n d_model"]) -> SparseLatents:
        """The same latents, sparse; no gradient for `x`."""

    @abstractmethod
    def encode_latents(
        self, x: Float[Tensor, "*n d_model"], latents: Int[Tensor, " m"]
    ) -> Float[Tensor, "*n m"]:
        """Only these latents; O(d_model) each where the architecture allows it."""

    def decode(self, latents: Float[Tensor, "*n s"]) -> Float[Tensor, "*n d_model"]:
        return latents @ self.W_dec + self.b_dec

    def part_read(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """What of `x` the SAE was made to reconstruct: all, unless it `reads_centred`."""
        return x - x.mean(dim=-1, keepdim=True) if self.reads_centred else x

    def forward(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """The reconstruction of `x`, with what is not read of it as it was."""
        found = self.decode(self.encode(x))
        return found + x.mean(dim=-1, keepdim=True) if self.reads_centred else found

    @abstractmethod
    def training_step(self, x: Float[Tensor, "n d_model"], progress: float) -> TrainingStep:
        """Loss of a batch whose mean squared norm about `b_dec` is `d_model`.

        `progress` is the share of training that is done, for penalties that warm up.
        """

    def calibrate(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Sets what is measured on data and not learned, such as a threshold."""

    def start(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Whatever depends on data before the first step."""
        self.calibrate(rows)
        self.fit_latents(rows)

    @torch.no_grad()
    def fit_latents(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Multiplies all latents by one factor: that with which they reconstruct a row best, in
        the median over rows, so that a few rows of huge norm (attention sinks) do not decide.

        Random latents overlap, so together they overshoot; without this the first steps do
        little but shrink them, and a learned threshold is left behind above everything.
        """
        n_some = min(len(rows), max(64, 2**24 // self.d_sae))
        some = rows[:: len(rows) // n_some][:n_some]
        wanted, written = some - self.b_dec, self(some) - self.b_dec
        factors = (wanted * written).sum(dim=-1) / written.square().sum(dim=-1)
        # A row without an active latent has no factor.
        found = factors[factors.isfinite() & (factors > 0)]
        if len(found):
            self.scale_latents(float(found.median()))

    @torch.no_grad()
    def scale_latents(self, factor: float) -> None:
        """Every latent times `factor`, with whatever it is compared with."""
        self.W_enc_T.mul_(factor)
        self.b_enc.mul_(factor)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Decoder rows back to unit norm."""
        self.W_dec.div_(self.W_dec.norm(dim=-1, keepdim=True))

    @torch.no_grad()
    def fold_scale(self, scale: float) -> Self:
        """From an SAE of `scale * x` to the SAE of `x` with the same reconstruction.

        Latents are divided by `scale` too, so decoder rows keep unit norm; everything that is
        compared with a pre-activation (thresholds) is divided alike.
        """
        self.b_enc.div_(scale)
        self.b_dec.div_(scale)
        return self
