"""Activations whose dictionary is known: sparse sums of fixed random directions.

Feature j is active with probability p_j, which falls as a power of its rank as features of
language models do, with a positive strength of its own; a mean and noise are added. What an
SAE should find in them is known, so tests and benchmarks can say whether it did.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.seeding import torch_stream


@dataclass(frozen=True)
class SyntheticActivations:
    """A seeded, endless source of rows; batch b is the same whoever asks for it."""

    d_model: int
    n_features: int
    mean_l0: float
    """Mean number of active features in a row."""

    noise: float = 0.05
    """Standard deviation of Gaussian noise per dimension, in units of a feature's strength."""

    seed: int = 0

    @property
    def directions(self) -> Float[Tensor, "f d_model"]:
        """Unit vectors, the true dictionary."""
        generator = torch_stream(self.seed, "synthetic", "directions")
        raw = torch.randn(self.n_features, self.d_model, generator=generator)
        return raw / raw.norm(dim=-1, keepdim=True)

    @property
    def probabilities(self) -> Float[Tensor, " f"]:
        """Share of rows in which each feature is active; sums to `mean_l0`."""
        weights = torch.arange(1, self.n_features + 1).float().pow(-0.5)
        probabilities = weights * (self.mean_l0 / weights.sum())
        return probabilities.clamp(max=0.9)

    def batch(self, index: int, n_rows: int) -> Float[Tensor, "n d_model"]:
        generator = torch_stream(self.seed, "synthetic", "batch", index, n_rows)
        shape = (n_rows, self.n_features)
        active = torch.rand(shape, generator=generator) < self.probabilities
        strength = 1 + 0.5 * torch.randn(shape, generator=generator).abs()
        noise = self.noise * torch.randn(n_rows, self.d_model, generator=generator)
        mean = self.directions.mean(dim=0) * self.n_features**0.5
        return (active * strength) @ self.directions + noise + mean
