"""Plan: what a recipe came to. Parts at hook points, and the edits that they mean.

Axes: d_model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.interventions.edits import AddDirection, Edit
from fluoroscope.interventions.moves import MoveAlong
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.interventions.vectors import SteeringVector
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.identity import ModelIdentity
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_moves import MoveLatent, MoveLatentAlong
from fluoroscope.studies.steering.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Part:
    """One direction at one hook point."""

    point: HookPoint
    direction: Float[Tensor, " d_model"]
    """What is written: of a latent its decoder row; else of norm 1, or of that of the row that it
    stands in for."""

    coefficient: float
    """What is added of it at strength 1, with its sign."""

    target: float
    """What `clamp` moves to at strength 1: a value of the latent, or of the component along the
    direction."""

    latent: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values.
    """What tables say of it: r, its interval, frequency..."""

    amount_of: int | None = None
    """The latent that `clamp` reads and moves to the target, of a control: what it would change
    along its own row is written along the direction instead, at the same norm."""


@dataclass(frozen=True, eq=False)
class Plan:
    """`parts` may be none: where nothing was found, or for a recipe of words alone."""

    recipe: Recipe
    parts: Sequence[Part]
    instruction: str = ""
    """Put before every prompt."""

    note: str = ""
    """What a reader must know of how it came about."""

    def edits(self, strength: float, saes: Mapping[str, SparseAutoencoder]) -> EditSet:
        """At this strength; nothing at 0."""
        found: dict[HookPoint | str, list[Edit]] = {}
        if strength == 0:
            return {}
        for point in sorted({part.point for part in self.parts}):
            parts = [part for part in self.parts if part.point == point]
            if self.recipe.action == "add":
                found[point] = [AddDirection(_total(parts), strength)]
            else:
                found[point] = _moves(parts, strength, saes.get(str(point)))
        return found

    def added(self) -> dict[HookPoint, Float[Tensor, " d_model"]]:
        """What `add` adds at strength 1."""
        points = sorted({part.point for part in self.parts})
        return {p: _total([part for part in self.parts if part.point == p]) for p in points}

    def vector(self, strength: float, model: ModelIdentity) -> SteeringVector:
        """As a file that `fluoro steer` reads; of plans that add."""
        if self.recipe.action != "add" or not self.parts:
            raise ConfigError(
                f"{self.recipe.name} is no steering vector: it "
                + ("clamps." if self.parts else "adds nothing to the activations.")
            )
        return SteeringVector(
            directions=self.added(),
            coefficient=strength,
            positions=LAST | GENERATED,
            source=f"{self.recipe.method} ({self.recipe.name})",
            model=model.to_json(),
            provenance={
                "method": self.recipe.method,
                "recipe": self.recipe.model_dump(mode="json"),
                "parts": [
                    {
                        "hook_point": str(part.point),
                        "latent": part.latent,
                        "coefficient": part.coefficient,
                        **part.facts,
                    }
                    for part in self.parts
                ],
            },
        )


def _total(parts: Sequence[Part]) -> Float[Tensor, " d_model"]:
    return torch.stack([part.coefficient * part.direction for part in parts]).sum(dim=0)


def _moves(parts: Sequence[Part], strength: float, sae: SparseAutoencoder | None) -> list[Edit]:
    controls = [part for part in parts if part.amount_of is not None]
    latents = [part for part in parts if part.amount_of is None and part.latent is not None]
    moves: list[Edit] = [
        MoveAlong(part.direction, part.target, strength, 1 if part.coefficient > 0 else -1)
        for part in parts
        if part.amount_of is None and part.latent is None
    ]
    if latents:
        assert sae is not None
        numbers = [part.latent for part in latents if part.latent is not None]
        moves.append(MoveLatent(sae, numbers, [part.target for part in latents], strength))
    if controls:
        assert sae is not None
        numbers = [part.amount_of for part in controls if part.amount_of is not None]
        targets = [part.target for part in controls]
        directions = [part.direction for part in controls]
        moves.append(MoveLatentAlong(sae, numbers, targets, strength, directions))
    return moves
