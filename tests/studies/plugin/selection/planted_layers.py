"""Synthetic layers of which one is known to be the best."""

import numpy as np
import torch
from torch import Tensor

from fluoroscope.studies.plugin.selection.features import LayerFeatures


def planted_features(
    best: int, n_layers: int = 6, n: int = 120, d: int = 24, n_classes: int = 2, seed: int = 0
) -> LayerFeatures:
    """States in which classes lie the further apart the nearer a layer is to `best`."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % n_classes)
    centres = random.normal(size=(n_classes, d))
    states = []
    for layer in range(n_layers):
        strength = 1.2 if layer == best else 0.25 / (1 + abs(layer - best))
        rows = strength * centres[labels] + random.normal(size=(n, d))
        states.append(torch.from_numpy(rows).float())
    ids = tuple(f"text-{row:04d}" for row in random.permutation(n))
    return LayerFeatures(tuple(states), labels, ids, np.ones(n_layers))


class Twist:
    """`x + strength * |x along a direction|`: what no linear reader can make of `x` itself."""

    def __init__(self, direction: Tensor, out: Tensor, strength: float) -> None:
        self.direction, self.out, self.strength = direction, out, strength

    def __call__(self, x: Tensor) -> Tensor:
        size = (x @ self.direction).abs()[..., None]
        return x + self.strength * size * self.out


def even_labels(n: int, d: int, seed: int = 0) -> tuple[Tensor, np.ndarray, Tensor]:
    """Vectors, whether they are far along a direction either way, and the direction."""
    random = torch.Generator().manual_seed(seed)
    pooled = torch.randn(n, d, generator=random)
    direction = torch.nn.functional.normalize(torch.randn(d, generator=random), dim=0)
    along = (pooled @ direction).abs()
    return pooled, (along > along.median()).long().numpy(), direction
