"""A steering study as it is worked on: the spec with what only the model and the SAEs know."""

import re
from collections.abc import Sequence
from itertools import pairwise

from fluoroscope.core.errors import ConfigError
from fluoroscope.organism.network import PLANTED_LAYER
from fluoroscope.steps.subject import Subject
from fluoroscope.studies.steering.recipes import Recipe
from fluoroscope.studies.steering.settings import SteeringSettings

CONTROLS = ("random-latents", "random-direction")
"""Methods that are drawn several times."""

PATTERN = "corrsteer-a"
"""What the controls are matched to: as many parts, by the same amounts."""

PROMPT, PLANTED = "prompt-only", "planted"
MAX_SINGLE = 8
"""Layers that are tried one by one."""


class SteeringConfig(SteeringSettings, Subject):
    """A `SteeringSpec` with everything filled in."""

    all_recipes: list[Recipe]
    """The main one first."""

    @property
    def main(self) -> Recipe:
        return self.all_recipes[0]

    def recipe(self, name: str) -> Recipe:
        return next(one for one in self.all_recipes if one.name == name)


def expanded(
    settings: SteeringSettings, points: Sequence[str], *, is_organism: bool
) -> list[Recipe]:
    """Every recipe of a run: methods, draws of random controls, ablations, sizes of the curve."""
    if settings.method in CONTROLS:
        raise ConfigError(
            f"method={settings.method} is a control, which is matched to another method; name the "
            "method that it stands beside, and have the control in `against`."
        )
    main = _of(settings, settings.method)
    against = [name for name in settings.against if name != settings.method]
    found = [main]
    for name in against:
        found += _drawn(settings, name) if name in CONTROLS else [_of(settings, name)]
    named = {recipe.method for recipe in found}
    if settings.instruction and PROMPT not in named:
        found.append(_of(settings, PROMPT))
    is_planted = is_organism and settings.task.name == "organism-bias"
    # Its activations are among what is collected where its layer has an SAE.
    if is_planted and PLANTED not in named and f"{PLANTED_LAYER}.resid_post" in points:
        found.append(_of(settings, PLANTED).model_copy(update={"layers": None}))
    found += [
        one.model_copy(update={"control": one.control or one.method in CONTROLS})
        for one in settings.recipes
    ]
    if settings.evaluate.ablations:
        found += ablations(main, settings.collect.pools, points)
    found += [_varied(main, f"{n} samples", "samples", n) for n in settings.evaluate.curve]
    found = _with_patterns(found)
    _check(found, settings, points)
    return found


def ablations(main: Recipe, pools: Sequence[str], points: Sequence[str]) -> list[Recipe]:
    """The main recipe with one setting changed at a time."""
    changes: dict[str, Sequence[str]] = {
        "pool": pools,
        "sign": ("positive", "negative", "either"),
        "coefficient": ("positive", "active", "difference", "quantile"),
        "action": ("add", "clamp"),
    }
    found = [
        _varied(main, f"{key} {value}", key, value)
        for key, values in changes.items()
        for value in values
        if getattr(main, key) != value
    ]
    if main.layers is None:
        for part in parts_of(points):
            where = part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}"
            found.append(_varied(main, f"only {where}", "layers", part))
    return found


def _varied(main: Recipe, change: str, key: str, value: object) -> Recipe:
    name = f"{main.name}, {change}"
    return main.model_copy(update={"name": name, key: value, "varied": True})


def pattern_of(control: Recipe, recipes: Sequence[Recipe]) -> Recipe | None:
    """What a control is matched to: corrsteer-a with the control's settings."""

    def settings(recipe: Recipe) -> dict[str, object]:
        return recipe.model_dump(exclude={"name", "varied"})

    wanted = settings(control.model_copy(update={"method": PATTERN, "control": False}))
    return next((one for one in recipes if settings(one) == wanted), None)


def _with_patterns(recipes: Sequence[Recipe]) -> list[Recipe]:
    """With what controls are matched to, before the first of them, where nobody asked for it."""
    found = list(recipes)
    for control in recipes:
        if control.method not in CONTROLS or pattern_of(control, found) is not None:
            continue
        is_free = PATTERN not in {one.name for one in found}
        name = PATTERN if is_free else f"{PATTERN} for {control.name}"
        pattern = control.model_copy(update={"name": name, "method": PATTERN, "control": False})
        found.insert(found.index(control), pattern)
    return found


def parts_of(points: Sequence[str]) -> list[list[str]]:
    """Every layer alone, or the early, middle and late third of many."""
    if len(points) < 2:
        return []
    if len(points) <= MAX_SINGLE:
        return [[point] for point in points]
    edges = [len(points) * i // 3 for i in range(4)]
    return [list(points[a:b]) for a, b in pairwise(edges)]


def _of(settings: SteeringSettings, method: str) -> Recipe:
    steer = settings.steer
    return Recipe(
        name=method,
        method=method,
        action=steer.action,
        pool=steer.pool,
        sign=steer.sign,
        coefficient=steer.coefficient,
        layers=steer.layers,
        control=method in CONTROLS,
    )


def _drawn(settings: SteeringSettings, method: str) -> list[Recipe]:
    one = _of(settings, method)
    n = settings.evaluate.draws
    return [one.model_copy(update={"name": f"{method} {draw}"}) for draw in range(1, n + 1)]


def file_name(recipe: str) -> str:
    """Of its steering vector."""
    return re.sub(r"[^\w.-]+", "-", recipe)


def _check(recipes: Sequence[Recipe], settings: SteeringSettings, points: Sequence[str]) -> None:
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"Two recipes are called {twice!r}; give each a name of its own.")
    files = [file_name(name) for name in names]
    alike = [name for name, file in zip(names, files, strict=True) if files.count(file) > 1]
    if alike:
        raise ConfigError(
            f"The recipes {alike[0]!r} and {alike[1]!r} would be saved under one file name; give "
            "them names that differ in letters or digits."
        )
    if not settings.instruction and any(recipe.method == PROMPT for recipe in recipes):
        raise ConfigError(
            f"{PROMPT} puts an instruction before prompts; say which: instruction=..."
        )
    for recipe in recipes:
        missing = sorted(set(recipe.layers or ()) - set(points))
        if missing:
            raise ConfigError(
                f"{recipe.name!r} is to steer at {', '.join(missing)}, and there are SAEs of "
                f"{', '.join(points)}; take some of these."
            )
        if recipe.strength == 0:
            raise ConfigError(
                f"The recipe {recipe.name!r} has strength 0, which steers nothing; the unsteered "
                "model is judged anyway. Give another, or none to have it searched."
            )
        if recipe.pool not in settings.collect.pools:
            raise ConfigError(
                f"The recipe {recipe.name!r} needs latents pooled by {recipe.pool}, and "
                f"collect.pools is {settings.collect.pools}; add it there."
            )
