"""The sets of SAEs of a run, by name: the one that is looked at, and those beside it."""

from collections.abc import Sequence

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.sae_sources import SAEChoice, find_saes, load_choice
from fluoroscope.steps.train_saes import sae_folder
from fluoroscope.studies.anatomy.plans import NAMED, AnatomyConfig

Choices = dict[HookPoint, SAEChoice]


def sae_sets(run: Run, config: AnatomyConfig) -> dict[str, Choices]:
    """Set -> hook point -> its SAE; the first set is the one that is looked at."""

    def find() -> dict[str, Choices]:
        own = {NAMED: _by_point(config.saes)} if config.saes else {}
        for name, plans in config.trained_sets.items():
            folders = [sae_folder(run, group, plan.key) for group, plan in plans.values()]
            found = [find_saes(str(folder), None, config.model)[0] for folder in folders]
            own[name] = _by_point(found)
        return own | {name: _by_point(choices) for name, choices in config.others.items()}

    return run.cached("sae sets", find)


def _by_point(choices: Sequence[SAEChoice]) -> Choices:
    found = {HookPoint(choice.hook_point): choice for choice in choices}
    return dict(sorted(found.items()))


def load_set(
    run: Run, config: AnatomyConfig, name: str, device: str
) -> dict[HookPoint, SparseAutoencoder]:
    """Without gradients. The set that is looked at is loaded once in each process; others are
    loaded when they are asked for, and are the caller's to let go.
    """

    def load() -> dict[HookPoint, SparseAutoencoder]:
        return {point: load_sae(run, config, name, point, device) for point in choices}

    choices = sae_sets(run, config)[name]
    return run.cached("sae set", load) if name == config.set_names[0] else load()


def load_sae(
    run: Run, config: AnatomyConfig, name: str, point: HookPoint, device: str = "cpu"
) -> SparseAutoencoder:
    """One of a set, for those who need no more."""
    choice = sae_sets(run, config)[name][point]
    return load_choice(choice, device=device).requires_grad_(False)
