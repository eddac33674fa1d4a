"""What the steps of an unlearning run load, each once in a process."""

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.base import TASKS
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import load_layers
from fluoroscope.steps.task_data import load_task
from fluoroscope.steps.texts_cost import texts_cost
from fluoroscope.studies.unlearning.plans import DEFAULT_PEOPLE, UnlearningConfig
from fluoroscope.studies.unlearning.sets import ForgetSets, organism_sets, text_sets
from fluoroscope.studies.unlearning.trials import Ground

N_TEXTS, N_TOKENS = 1200, 64
"""Texts of both sides, and tokens of each, as a plan reckons."""

_QUESTIONS = "organism-facts"


def load_saes_by_point(
    run: Run, config: UnlearningConfig, device: str
) -> dict[HookPoint, SparseAutoencoder]:
    model = load_model(run, config.model, device)
    found = load_layers(run, config, device, model.identity)
    return {HookPoint(name): sae for name, sae in found.items()}


def load_sets(run: Run, config: UnlearningConfig, device: str = "cpu") -> ForgetSets:
    def load() -> ForgetSets:
        if config.forget is None or config.retain is None:
            return organism_sets(config.people or DEFAULT_PEOPLE, config.seed)
        if config.task is None:
            return text_sets(config.forget, config.retain)
        data = load_task(run, config.model, config.task, config.data_dir, config.seed, device)
        if data.task.kind != "choice":
            raise ConfigError(
                f"task={config.task.name} is no task of choices, so nobody could tell what chance "
                "scores; take one of choices, or name it in evaluate.others."
            )
        return text_sets(
            config.forget,
            config.retain,
            retain_samples=data.sides["test"],
            retain_validation=data.sides["validation"],
        )

    return run.cached(("forget sets", device), load)


def load_asking(run: Run, config: UnlearningConfig, device: str = "cpu") -> Asking | None:
    """How samples of the sets are put to the model; None where there are none."""
    if config.forget is None:
        return Asking(TASKS.load(_QUESTIONS).scorer(), "options", seed=config.seed)
    if config.task is None:
        return None
    return load_task(run, config.model, config.task, config.data_dir, config.seed, device).asking


def load_ground(run: Run, config: UnlearningConfig, device: str) -> Ground:
    def load() -> Ground:
        model = load_model(run, config.model, device)
        sets, asking = load_sets(run, config, device), load_asking(run, config, device)
        return Ground(model, sets, asking)

    return run.cached(("ground", device), load)


def reading_cost(config: UnlearningConfig, times: float, parallel: int, note: str = "") -> Cost:
    """Of reading the texts of both sides so many times."""
    n_texts = times * N_TEXTS
    return texts_cost(
        config.shape,
        config.model.dtype,
        n_tokens=n_texts * N_TOKENS,
        columns=N_TOKENS,
        rows=N_TOKENS,
        passes=n_texts / N_TOKENS,
        n_texts=n_texts,
        parallel=parallel,
        note=note or f"about {N_TEXTS} texts",
    )
