"""Plans: what is judged under which name, and what it stands for.

    conditional-<selection>    clamped in texts that the learned detector flags
    share-<selection>          clamped in texts that DSG's own detector flags
    static-<selection>         clamped in every text, at settings of its own
    everywhere                 the clamp of the main conditional one, in every text
    zero-..., random-... <k>   its latents set to 0; random latents as frequent, clamped alike
    finetuned-<objective>      fine-tuned on the same texts

Each `conditional`, `share` and `static` has the settings that validation likes best.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from fluoroscope.core.errors import ConfigError
from fluoroscope.steps.subject import Subject
from fluoroscope.studies.unlearning.settings import UnlearningSettings

Where = Literal["learned", "share", "every text"]
"""In which texts latents are clamped: by which detector."""

Role = Literal["untreated", "main", "method", "control", "fine-tuned"]
UNTREATED_NAME = "untreated"
EVERYWHERE = "everywhere"
KINDS: Mapping[str, Where] = {"conditional": "learned", "share": "share", "static": "every text"}
DEFAULT_PEOPLE = 12


class UnlearningConfig(UnlearningSettings, Subject):
    """An `UnlearningSpec` with everything filled in; `people` is None where texts are forgotten."""

    @property
    def clamped_at(self) -> list[list[str]]:
        """The hook points at which latents are clamped at once, one list a trial."""
        points = self.select.hook_points or [str(point) for point in self.points]
        alone = [[point] for point in points]
        return [*alone, points] if self.select.together and len(points) > 1 else alone

    @property
    def main(self) -> str:
        return f"conditional-{self.select.by[0]}"

    def thresholds(self, selection: str) -> Sequence[float]:
        return self.select.max_retain if selection == "frequency" else self.select.percentile

    @property
    def objectives(self) -> list[str]:
        return list(dict.fromkeys(one.objective for one in self.finetune))

    @property
    def plans(self) -> list["Plan"]:
        return all_plans(self)


class Plan(NamedTuple):
    name: str
    role: Role
    where: Where | None
    """None of what clamps nothing."""

    settings_of: str = ""
    """The name under which its settings were tuned."""

    draw: int = 0
    """0 of what was selected, else the number of a draw of random latents."""

    is_zero: bool = False
    """Whether latents are set to 0."""

    objective: str = ""
    """Of fine-tuning."""


def all_plans(config: UnlearningConfig) -> list[Plan]:
    main = config.main
    plans = [Plan(UNTREATED_NAME, "untreated", None)]
    for kind, where in KINDS.items():
        for selection in config.select.by:
            name = f"{kind}-{selection}"
            plans.append(Plan(name, "main" if name == main else "method", where, name))
    plans += [
        Plan(EVERYWHERE, "method", "every text", main),
        Plan("zero-conditional", "control", "learned", main, is_zero=True),
        Plan("zero-everywhere", "control", "every text", main, is_zero=True),
    ]
    for draw in range(1, config.evaluate.draws + 1):
        plans += [
            Plan(f"random-conditional {draw}", "control", "learned", main, draw),
            Plan(f"random-everywhere {draw}", "control", "every text", main, draw),
        ]
    plans += [
        Plan(f"finetuned-{name}", "fine-tuned", None, objective=name) for name in config.objectives
    ]
    return plans


def plan_of(config: UnlearningConfig, name: str) -> Plan:
    return next(plan for plan in config.plans if plan.name == name)


def taught_again(config: UnlearningConfig) -> list[Plan]:
    """What is relearnt from: the main one, its clamp in every text, and what was fine-tuned."""
    wanted = (config.main, EVERYWHERE)
    return [one for one in config.plans if one.name in wanted or one.objective]


def check_settings(settings: UnlearningSettings, *, is_organism: bool) -> None:
    """Refuses what no step could do, before the first one."""
    if (settings.forget is None) != (settings.retain is None):
        missing = "retain" if settings.retain is None else "forget"
        raise ConfigError(f"{missing} is missing: give both, forget=FILE and retain=FILE.")
    if settings.forget is None and not is_organism:
        raise ConfigError(
            "Say what is to be forgotten and what to be kept: forget=FILE retain=FILE. Only of the "
            "organism people can be forgotten without texts."
        )
    if settings.forget is not None and settings.people is not None:
        raise ConfigError(
            f"people={settings.people} are of the organism, and forget={settings.forget.source} "
            "names texts; give one of the two (people=null takes back what a preset says)."
        )
    if settings.forget is None and settings.task is not None:
        raise ConfigError(
            f"task={settings.task.name} judges what is kept of texts; the people of the organism "
            "are asked about. Name it in evaluate.others."
        )


def check_points(config: UnlearningConfig) -> None:
    known = [str(point) for point in config.points]
    for point in config.select.hook_points or ():
        if point not in known:
            raise ConfigError(
                f"select.hook_points has {point}; there are SAEs at {', '.join(known)}."
            )
