"""Controls: the shape of CorrSteer-A, with what it picks left to chance.

Several draws are several recipes: what is drawn depends on the seed and the recipe's name.

Axes: d_model.
"""

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
    """Each has the amount and the sign of the pick that it stands for, so `add` adds about as much
    and `clamp` sets what is about as often active to the same value.
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
        return latent_plan(matched, recipe, material)


class RandomDirections(Method):
    """Uniform on the sphere. Under `clamp` the mean sample is moved by the same amount."""

    about = "At each layer of corrsteer-a a random direction of the norm that it adds."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        parts = []
        for point, added in CorrSteerA().plan(recipe, material).added().items():
            generator = torch_stream(material.seed, recipe.name, str(point))
            noise = torch.randn(added.shape, generator=generator)
            unit, norm = noise / noise.norm(), float(added.norm())
            target = norm
            if recipe.action == "clamp":
                mean = material.dense(point, recipe.samples).mean(axis=0)
                target += float(mean @ unit.double().numpy())
            parts.append(Part(point, unit, norm, target))
        return Plan(recipe, parts)
