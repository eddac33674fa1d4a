"""A policy study as it is worked on: the spec with what only the model and the SAEs know."""

from typing import Literal

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.base import TASKS
from fluoroscope.data.tasks.samples import Scorer
from fluoroscope.interventions.replies.answering import Way, way_of
from fluoroscope.steps.subject import Subject
from fluoroscope.steps.task_spec import TaskSpec
from fluoroscope.studies.policy.settings import PolicySettings

Mode = Literal["exact", "reinforce", "grpo", "ppo"]
"""By what a policy was trained: the exact gradient, or an objective over texts."""

EXACT: Mode = "exact"
BEST = "best"
"""The set of candidates that correlate; the others are random ones."""


class PolicyConfig(PolicySettings, Subject):
    """A `PolicySpec` with everything filled in."""

    modes: list[Mode]
    """The main one first."""

    is_enumerated: bool
    """Whether the reward of every action is known for every sample of the task."""

    has_text_scores: bool
    """Whether generated replies to the task can be scored."""

    @property
    def sets(self) -> list[str]:
        """Of candidates."""
        return [BEST, *(f"random {draw}" for draw in range(1, self.candidates.draws + 1))]

    @property
    def text_modes(self) -> list[Mode]:
        return [mode for mode in self.modes if mode != EXACT]

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """By name, the main one first."""
        return {task.name: task for task in (self.task, *self.evaluate.others)}

    def sets_of(self, mode: Mode) -> list[str]:
        """The sets on which policies of a mode are trained; controls by the exact gradient, or by
        texts where there is no other.
        """
        return self.sets if mode == self.modes[0] else [BEST]


def modes_of(settings: PolicySettings) -> tuple[list[Mode], bool, bool]:
    """Modes, whether rewards are enumerated, whether texts are scored; what cannot be is refused
    here, before the first reply.
    """
    task, learn = settings.task, settings.learn
    is_enumerated, has_texts = can_enumerate(task), "texts" in _scorer_ways(task)
    by = learn.by or (["rewards"] if is_enumerated else ["texts"])
    if len(set(by)) < len(by):
        raise ConfigError(f"learn.by names one twice: {by}.")
    if "rewards" in by and not is_enumerated:
        raise ConfigError(
            f"The rewards of {task.name} cannot be enumerated: replies of several tokens are "
            "generated. Take learn.by=[texts], task.way=options or sums where the task has them, "
            "or task.max_tokens=1."
        )
    if "texts" in by and not has_texts:
        raise ConfigError(
            f"{task.name} has no scorer of generated texts, so nothing can be learnt from them; "
            "take learn.by=[rewards]."
        )
    sampling, training = learn.sampling, learn.training
    is_own = sampling.temperature == 1 and sampling.top_k is None and sampling.top_p is None
    if "texts" in by and training.kl_weight and not is_own:
        raise ConfigError(
            "learn.training.kl_weight counts the KL to the unsteered model, which texts tell only "
            "where they are drawn at learn.sampling.temperature=1 without top_k and top_p."
        )
    if "texts" in by and sampling.temperature == 0:
        raise ConfigError(
            "learn.sampling.temperature=0 gives the same reply to the same actions, so that a "
            "group of replies has little to compare; take 1."
        )
    for other in settings.evaluate.others:
        if not can_enumerate(other):
            raise ConfigError(
                f"evaluate.others has {other.name}, whose replies are generated; others are judged "
                "where the reward of every action can be enumerated (task.way options or sums)."
            )
    modes: list[Mode] = [EXACT if one == "rewards" else training.objective for one in by]
    return modes, is_enumerated, has_texts


def can_enumerate(task: TaskSpec) -> bool:
    """Whether one decision makes the reply: options are scored, or it is one token."""
    way = task_way(task)
    return way != "texts" or (task.max_tokens or TASKS.load(task.name).max_tokens) == 1


def task_way(task: TaskSpec) -> Way:
    kind = TASKS.load(task.name)
    # Whoever judges these is learnt from data, which is read later.
    return "texts" if kind.kind == "judged" else way_of(kind, kind.scorer(), task.way)


def _scorer_ways(task: TaskSpec) -> tuple[str, ...]:
    kind = TASKS.load(task.name)
    scorer: Scorer | None = None if kind.kind == "judged" else kind.scorer()
    return ("texts",) if scorer is None else scorer.ways
