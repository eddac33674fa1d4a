"""JumpReLU sparse autoencoder (Rajamanoharan et al. 2024, arXiv:2407.14435).

A latent is its pre-activation where that exceeds a learned threshold of its own, and the
penalty counts active latents. Neither is differentiable in the threshold, so gradients are
estimated from the pre-activations within half a `bandwidth` of it (their equations 11, 12).

Thresholds start where the data has `start_l0` active latents, not near zero. Training is then
sparse from its first step on, and a threshold is always among pre-activations to learn from.
"""

from typing import Any

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.autograd import Function

from fluoroscope.sae.base import SAEConfig, TrainingStep
from fluoroscope.sae.sparse_kernels import SparseLatents, decode_sparse, encode_sparse, select_above
from fluoroscope.sae.thresholded import ThresholdedSAE, threshold_for_l0


class JumpReLUConfig(SAEConfig):
    target_l0: PositiveFloat | None = 32
    """Mean number of active latents that the penalty `(l0 / target_l0 - 1)^2` aims at; null for
    a penalty linear in l0."""

    l0_coefficient: NonNegativeFloat = 1.0
    """Weight of the penalty against the fraction of variance unexplained. Without `target_l0`
    it weighs l0 / d_model."""

    bandwidth: PositiveFloat = 0.1
    """Width of the window in which thresholds learn; inputs are scaled to unit variance per
    dimension."""

    penalty_warmup: NonNegativeFloat = 0.1
    """Share of training over which the penalty rises from zero."""

    @model_validator(mode="after")
    def _target_fits(self) -> "JumpReLUConfig":
        if self.target_l0 is not None and self.target_l0 > self.d_sae:
            raise ValueError(
                f"target_l0={self.target_l0} latents cannot be active out of d_sae={self.d_sae}."
            )
        return self

    @property
    def start_l0(self) -> float:
        """Mean number of active latents at the first step."""
        return min(self.d_sae / 2, 2 * (self.target_l0 or self.d_sae / 16))


class JumpReLU(ThresholdedSAE):
    architecture = "jumprelu"
    config_type = JumpReLUConfig
    config: JumpReLUConfig

    def __init__(self, config: JumpReLUConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.threshold = nn.Parameter(torch.full((config.d_sae,), 0.01))

    @torch.no_grad()
    def start(self, rows: Float[Tensor, "n d_model"]) -> None:
        self.threshold.fill_(threshold_for_l0(self, rows, self.config.start_l0))
        self.fit_latents(rows)

    def training_step(self, x: Float[Tensor, "n d_model"], progress: float) -> TrainingStep:
        half, threshold = self.config.bandwidth / 2, self.threshold
        floor = (threshold.detach() - half).clamp(min=0)

        def select(pre: Tensor) -> SparseLatents:
            return select_above(pre, floor)

        # Entries inside the window but below the threshold are zero, and still teach it.
        near = encode_sparse(x, self.W_enc_T, self.b_enc, self.b_dec, select)
        own_threshold = threshold[near.indices.long()]
        latents = near.with_values(_Jump.apply(near.values, own_threshold, half))
        l0 = _Step.apply(near.values, own_threshold, half).sum() / len(x)
        reconstruction = decode_sparse(latents, self.W_dec) + self.b_dec
        loss = (reconstruction - x).square().mean() + self._penalty(l0, progress)
        return TrainingStep(loss, reconstruction, latents.count())

    def _penalty(self, l0: Float[Tensor, ""], progress: float) -> Float[Tensor, ""]:
        warmup = self.config.penalty_warmup
        weight = self.config.l0_coefficient * (min(1.0, progress / warmup) if warmup else 1.0)
        if self.config.target_l0 is None:
            return weight * l0 / self.d_model
        return weight * (l0 / self.config.target_l0 - 1).square()

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        super().normalise_decoder()
        self.threshold.clamp_(min=0)


class _Jump(Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, half: float) -> Tensor:  # Any: torch's.
        active = pre > threshold
        ctx.save_for_backward(pre, threshold, active)
        ctx.half = half
        return pre * active

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold, active = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.half
        return grad * active, -grad * near * threshold / (2 * ctx.half), None


class _Step(Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, half: float) -> Tensor:  # Any: torch's.
        ctx.save_for_backward(pre, threshold)
        ctx.half = half
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.half
        return None, -grad * near / (2 * ctx.half), None
