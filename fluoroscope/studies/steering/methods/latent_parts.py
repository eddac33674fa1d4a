"""From rows of a table of latents to parts of a plan: what methods that pick latents share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_selection import Ranking, top_per_layer, with_coefficients
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import points_of, successes
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe

_FACTS = (
    "rank", "r", "r_low", "r_high", "p_all", "q", "is_significant", "n_tests", "frequency",
    "frequency_success", "frequency_failure", "mutual_information", "fisher", "mean_difference",
    "output_score", "control_of",
)  # fmt: skip
"""Columns that tables of parts show, where there are such."""


class Latents(NamedTuple):
    """Parts, and what must be said of those that are no parts."""

    parts: list[Part]
    note: str


def usable_latents(recipe: Recipe, material: Material) -> pl.DataFrame:
    """Table of the latents that the recipe may pick from."""
    successes(recipe, material)
    points = [str(point) for point in points_of(recipe, material)]
    table = material.table(recipe.pool, recipe.samples)
    return table.filter(pl.col("hook_point").is_in(points))


def best_of_every_layer(recipe: Recipe, material: Material, by: Ranking = "r") -> pl.DataFrame:
    """The first of each hook point; there is one at least."""
    table = usable_latents(recipe, material)
    return some(top_per_layer(table, by, recipe.sign), table, recipe)


def some(chosen: pl.DataFrame, table: pl.DataFrame, recipe: Recipe, kind: str = "") -> pl.DataFrame:
    """What was chosen, if anything was; `kind` of latents were looked for."""
    if not chosen.is_empty():
        return chosen
    n_tested = int(table["is_tested"].sum())
    wanted = {"positive": "a positive r", "negative": "a negative r", "either": "any r"}
    raise ConfigError(
        f"{recipe.name} finds no {kind}latent with {wanted[recipe.sign]}: {n_tested} of "
        f"{len(table)} latents vary and are active often enough to be tested. Take more samples, "
        "sign=either, another pool, or more layers."
    )


def latents_of(chosen: pl.DataFrame, recipe: Recipe, material: Material) -> Latents:
    """A part for each row. Those that would add nothing are left out, and named in the note."""
    rows = chosen
    if "coefficient" not in chosen.columns:
        rows = with_coefficients(chosen, recipe.coefficient)
    parts, left_out = [], []
    for row in rows.iter_rows(named=True):
        is_upwards, amount = row["sign"] > 0, float(row["coefficient"])
        is_told = math.isfinite(amount) and amount != 0
        # Where a latent is removed, how much would be added does not matter.
        if not is_told and (recipe.action == "add" or is_upwards):
            left_out.append(f"{row['hook_point']}:{row['latent']}")
            continue
        point, latent = HookPoint(row["hook_point"]), int(row["latent"])
        decoder = material.saes[row["hook_point"]].W_dec[latent]
        coefficient = amount if is_told else 0.0
        parts.append(
            Part(
                point=point,
                direction=decoder.detach().float().clone(),
                coefficient=coefficient,
                target=coefficient if is_upwards else 0.0,
                latent=latent,
                facts={name: _plain(row[name]) for name in _FACTS if name in row},
            )
        )
    if not parts:
        raise ConfigError(
            f"coefficient={recipe.coefficient} of {recipe.name} is 0 or not known for each latent "
            f"that it picks ({', '.join(left_out)}), so that nothing would be added. Take another "
            "coefficient (active, difference), or action=clamp."
        )
    why = f"coefficient={recipe.coefficient} is 0 or not known"
    return Latents(parts, f"Left out, as {why}: {', '.join(left_out)}." if left_out else "")


def latent_plan(chosen: pl.DataFrame, recipe: Recipe, material: Material, note: str = "") -> Plan:
    """The plan of all rows at once."""
    found = latents_of(chosen, recipe, material)
    return plan_of(recipe, found.parts, note, found.note)


def plan_of(recipe: Recipe, parts: Sequence[Part], *notes: str) -> Plan:
    """The plan of these latents; its note also says which of them may be chance."""
    return Plan(recipe, parts, note=" ".join(part for part in (*notes, _chance(parts)) if part))


def names_of(parts: Sequence[Part]) -> str:
    return ", ".join(f"{part.point}:{part.latent}" for part in parts) or "none"


def _chance(parts: Sequence[Part]) -> str:
    found = [part for part in parts if part.facts.get("is_significant") is False]
    if not found:
        return ""
    n_tests = found[0].facts.get("n_tests")
    return f"Not beyond chance among {n_tests} tests (q >= 0.05): {names_of(found)}."


def _plain(value: object) -> object:
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
