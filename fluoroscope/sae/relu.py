"""ReLU sparse autoencoder with an L1 penalty (Bricken et al. 2023, Cunningham et al. 2023).

The penalty is linear in the latents, weighted by decoder norms (which are held at one), and
warms up from zero so that latents are not driven out before they mean anything.
"""

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Tensor

from fluoroscope.sae.base import SAEConfig, TrainingStep
from fluoroscope.sae.thresholded import ThresholdedSAE


class ReLUConfig(SAEConfig):
    l1_coefficient: NonNegativeFloat = 0.005
    """Weight of the mean L1 norm of the latents against the fraction of variance unexplained;
    inputs are scaled to unit variance per dimension."""

    l1_warmup: NonNegativeFloat = 0.1
    """Share of training over which the penalty rises from zero."""


class ReLU(ThresholdedSAE):
    architecture = "relu"
    config_type = ReLUConfig
    config: ReLUConfig

    def __init__(self, config: ReLUConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        # A constant, and not saved: only thresholds that were learned or measured are.
        self.register_buffer("threshold", torch.zeros(config.d_sae), persistent=False)

    def training_step(self, x: Float[Tensor, "n d_model"], progress: float) -> TrainingStep:
        # Early in training half of all latents are active, so dense products are the fast ones.
        latents = self.pre_activations(x).relu()
        reconstruction = self.decode(latents)
        warmup = min(1.0, progress / self.config.l1_warmup) if self.config.l1_warmup > 0 else 1.0
        penalty = self.config.l1_coefficient * warmup * latents.sum(dim=-1).mean()
        loss = (reconstruction - x).square().mean() + penalty
        return TrainingStep(loss, reconstruction, (latents.detach() > 0).sum(dim=0))
