"""CorrSteer-A layer by layer, against its overshoot.

A feature recurs in the residual stream of layer after layer, so that -A adds the same thing many
times: what layer 3 adds has already moved the latent that layer 4 is to be steered with. Here the
latent of each layer is read again while the picks of all earlier layers hold, and only what is
still missing is added:

    c'_l = c_l clip(1 - (E[x_l | earlier edits] - E[x_l]) / c_l, 0, 1)

with c_l the coefficient and E[x_l] the mean pooled latent over the training samples that are read
again, both without edits: between nothing and what -A adds. To read the coefficient itself again
would do the opposite, as the mean over successes rises with what earlier layers add.

`clamp` goes to a value and stops there, so nothing overshoots, and the plan is that of -A.
"""

from dataclasses import replace

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method
from fluoroscope.studies.steering.methods.latent_parts import (
    best_of_every_layer,
    latents_of,
    names_of,
    plan_of,
)
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe


class CorrSteerSequential(Method):
    about = "As corrsteer-a, each layer by what earlier layers have not moved already."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        found = latents_of(best_of_every_layer(recipe, material), recipe, material)
        if recipe.action == "clamp":
            note = "The same as corrsteer-a: what is clamped does not overshoot."
            return plan_of(recipe, found.parts, note, found.note)
        parts: list[Part] = []
        whole: list[Part] = []
        for part in found.parts:
            moved = _moved(part, parts, recipe, material)
            share = min(max(1 - moved / part.coefficient, 0.0), 1.0)
            if share == 0:
                whole.append(part)
                continue
            facts = {**part.facts, "moved_before": moved, "share_of_a": share}
            parts.append(replace(part, coefficient=share * part.coefficient, facts=facts))
        note = f"Moved far enough by earlier layers: {names_of(whole)}." if whole else ""
        return plan_of(recipe, parts, note, found.note)


def _moved(part: Part, earlier: list[Part], recipe: Recipe, material: Material) -> float:
    """By how much the picks of earlier layers move the mean of a latent."""
    if not earlier:
        return 0.0
    edits = Plan(recipe, earlier).edits(1.0, material.saes)
    after = material.remeasure(part.point, edits, recipe.pool)
    # Both means are over the same samples, or their difference would be chance as well.
    before = material.table(recipe.pool, int(after["n"][0]))
    return _mean_of(part, after) - _mean_of(part, before)


def _mean_of(part: Part, table: pl.DataFrame) -> float:
    """Over all samples, zeros included."""
    is_it = (pl.col("hook_point") == str(part.point)) & (pl.col("latent") == part.latent)
    rows = table.filter(is_it)
    if len(rows) != 1:
        raise ConfigError(f"The table has {len(rows)} rows of {part.point}:{part.latent}, not 1.")
    row = rows.row(0, named=True)
    # The mean over active samples is not known where there are none.
    return row["mean_active"] * row["n_active"] / row["n"] if row["n_active"] else 0.0
