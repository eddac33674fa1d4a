"""CorrSteer (arXiv:2508.12535): latents by their correlation with the outcome.

-S steers with the best latent of all layers, -A with the best of every layer at once, -P with
those of A that help alone on the validation side. The paper keeps of A what is better than the
unsteered model by however little; here the gain must exceed its standard error (`trials`). Greedy
forward selection asks instead what a latent helps beside those that are there already.
"""

from dataclasses import replace

import polars as pl

from fluoroscope.features.correlation_selection import ranked, top_overall
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method
from fluoroscope.studies.steering.methods.latent_parts import (
    best_of_every_layer,
    latent_plan,
    latents_of,
    names_of,
    plan_of,
    some,
    usable_latents,
)
from fluoroscope.studies.steering.methods.trials import Gain, Trials
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe

N_CANDIDATES = 10
"""Latents that greedy selection tries at most; it takes up to 55 passes over the validation side.
"""


class CorrSteerS(Method):
    about = "The one latent of all layers with the largest r."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        table = usable_latents(recipe, material)
        chosen = some(top_overall(table, "r", recipe.sign), table, recipe)
        return latent_plan(chosen, recipe, material)


class CorrSteerA(Method):
    about = "Of every layer the latent with the largest r, all at once."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        return latent_plan(best_of_every_layer(recipe, material), recipe, material)


class CorrSteerP(Method):
    needs_validation = True
    about = "Of the latents of corrsteer-a those that help alone on the validation side."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        found = latents_of(best_of_every_layer(recipe, material), recipe, material)
        trials = Trials(recipe, material)
        kept: list[Part] = []
        fell: list[str] = []
        for part in found.parts:
            gain = trials.gain(trials.scores([part]))
            if gain.is_clear:
                kept.append(_with_gain(part, gain))
            else:
                fell.append(f"{part.point} {gain}")
        said = f"Gain alone at strength {trials.strength:g} not beyond its standard error, so left "
        note = f"{said}out: {', '.join(fell)}." if fell else "Every layer's latent helps alone."
        if not kept:
            note = f"{note} Nothing is left to steer with."
        return plan_of(recipe, kept, note, found.note)


class CorrSteerGreedy(Method):
    needs_validation = True
    about = "One latent after the other, each the one that helps most beside those before it."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        found = latents_of(candidates(recipe, material), recipe, material)
        trials = Trials(recipe, material)
        kept: list[Part] = []
        left, now = list(found.parts), trials.plain
        end = "Every candidate helps."
        while left:
            tried = [trials.scores([*kept, part]) for part in left]
            best = trials.best(tried)
            gain = trials.gain(tried[best], now)
            if not gain.is_clear:
                end = f"The next best, {names_of([left[best]])}, would gain {gain}."
                break
            kept.append(_with_gain(left.pop(best), gain))
            now = tried[best]
        order = f"Taken one by one at strength {trials.strength:g}: {names_of(kept)}, of "
        order += f"{len(found.parts)} candidates."
        return plan_of(recipe, kept, order, end, found.note)


def candidates(recipe: Recipe, material: Material, n: int = N_CANDIDATES) -> pl.DataFrame:
    """The best latent of every layer, then the second best of every layer, and so on up to `n`.

    So that one feature's copies in neighbouring layers do not crowd out whatever else there is,
    as they would among the `n` largest r; within a round the larger |r| goes first.
    """
    table = usable_latents(recipe, material)
    order = some(ranked(table, "r", recipe.sign), table, recipe)
    rounds = order.with_columns(round=pl.int_range(pl.len()).over("hook_point"))
    return rounds.sort("round", "rank").head(n).drop("round")


def _with_gain(part: Part, gain: Gain) -> Part:
    found = {"validation_gain": gain.value, "validation_error": gain.error}
    return replace(part, facts={**part.facts, **found})
