"""Controls: the shape of CorrSteer-A, with what it picks left to chance.

Several draws are several recipes: what is drawn depends on the seed and the recipe's name.

Under `clamp` a latent moves by what is missing, which differs from position to position; another
latent would be missing something else. So a control reads the pick, and writes what the pick would
change along another direction: on the same activations it changes exactly as much.

Axes: d_model.
"""

from dataclasses import replace

import polars as pl
import torch

from fluoroscope.core.seeding import derive_seed, torch_stream
from fluoroscope.features.correlation_selection import random_controls, with_coefficients
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method
from fluoroscope.studies.steering.methods.corrsteer import CorrSteerA
from fluoroscope.studies.steering.methods.latent_parts import (
    best_of_every_layer,
    latent_plan,
    usable_latents,
)
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe


class RandomLatents(Method):
    """Each has the amount and the sign of the pick that it stands for, so `add` adds about as
    much, and `clamp` exactly.
    """

    about = "For each latent of corrsteer-a another, as frequent and as long, by the same amount."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        chosen = with_coefficients(best_of_every_layer(recipe, material), recipe.coefficient)
        norms = {
            point: material.saes[point].W_dec.detach().double().norm(dim=1).cpu().numpy()
            for point in chosen["hook_point"].to_list()
        }
        seed = derive_seed(material.seed, recipe.name)
        drawn = random_controls(usable_latents(recipe, material), chosen, norms, seed)
        of = chosen.select("hook_point", "sign", "coefficient", control_of=pl.col("latent"))
        matched = drawn.drop("sign").join(
            of, on=["hook_point", "control_of"], how="left", maintain_order="left"
        )
        plan = latent_plan(matched, recipe, material)
        if recipe.action == "add":
            return plan
        return replace(plan, parts=[_in_place(part, material) for part in plan.parts])


class RandomDirections(Method):
    """Uniform on the sphere."""

    about = "For each latent of corrsteer-a a random direction, by the same amount."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        return Plan(
            recipe,
            [
                _randomly(part, recipe, material)
                for part in CorrSteerA().plan(recipe, material).parts
            ],
        )


def _in_place(part: Part, material: Material) -> Part:
    """Writes along this latent what the one that it controls for would change."""
    pick = int(part.facts["control_of"])
    norm = material.saes[str(part.point)].W_dec[pick].detach().float().norm()
    direction = part.direction / part.direction.norm() * norm
    return replace(part, direction=direction, amount_of=pick)


def _randomly(pick: Part, recipe: Recipe, material: Material) -> Part:
    generator = torch_stream(material.seed, recipe.name, str(pick.point))
    noise = torch.randn(pick.direction.shape, generator=generator)
    unit, norm = noise / noise.norm(), float(pick.direction.norm())
    if recipe.action == "add":
        added = norm * abs(pick.coefficient)
        return Part(pick.point, unit, added, added)
    return Part(pick.point, norm * unit, pick.coefficient, pick.target, amount_of=pick.latent)
