"""What a run has trained, opened again: a slot network as a language model, with hook points.

    model = load_trained("pointer", "pointer_fixed.slots.42", n_steps=8)
    model = load_trained("a_sweep", "final/pointer_fixed.best.42", n_steps=8)

Names of trainings are those of their folders, with the phase before them in a sweep.
"""

from pathlib import Path
from typing import Any

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, MismatchError, ModelError, RunError
from fluoroscope.core.registry import nearest
from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_metadata, read_tensors
from fluoroscope.models.loading import check_device
from fluoroscope.runs.ledger import find_run
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.language_model import SlotLanguageModel
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.slot_network import new_network
from fluoroscope.studies.connection.steps.questions import load_questions
from fluoroscope.studies.connection.steps.train import TRAIN, training_name
from fluoroscope.studies.connection.steps.training_loop import STATE, TRAINED
from fluoroscope.studies.connection.sweep_config import PHASES
from fluoroscope.studies.connection.training_config import ThinkingConfig

STUDY = "connection"


def load_trained(
    run: str | Path, training: str, *, n_steps: int | None = None, device: str = "cpu"
) -> SlotLanguageModel:
    """The network as at its best look, with its tokenizer, for reading: weights take no gradients.

    `run` is a run's name or folder. It thinks as often as it did in evaluation, unless `n_steps`
    says how often; that has to be said where the number was each question's own
    (`thinking.steps=by_depth`). Raises `ModelError` for a baseline, and for weights that were not
    kept.
    """
    opened = _opened(run)
    folders = _folders(opened)
    if training not in folders:
        raise RunError(
            f"Run {opened.name} has no training {training!r}.{nearest(training, list(folders))} It "
            f"has: {', '.join(folders) or 'none yet'}."
        )
    folder = folders[training]
    state = read_json(folder / STATE)
    _check_opens(opened, training, folder, state)
    about = read_metadata(folder / TRAINED)
    if any(about[name] != state[name] for name in about):
        raise MismatchError(
            f"{folder / TRAINED} holds the weights of {about['dataset']}.{about['arm']}."
            f"{about['seed']}, and {STATE} beside it is of {training}. Take both from one folder."
        )
    config = build(NetworkConfig, state["reasoner"])
    if n_steps is None:
        n_steps = _steps_of(build(ThinkingConfig, state["thinking"]), config, training)
    network = new_network(config, 0)
    network.load_state_dict(read_tensors(folder / TRAINED))
    network.to(check_device(device)).requires_grad_(False)
    tokenizer = load_questions(opened, opened.config, state["dataset"]).tokenizer
    name = f"{opened.name}/{training}"
    return SlotLanguageModel.of(network, tokenizer, name=name, n_steps=n_steps)


def kept_trainings(run: str | Path) -> list[str]:
    """Names of all that `load_trained` opens."""
    return _kept(_opened(run))


def _opened(run: str | Path) -> Run:
    opened = Run.open(find_run(str(run)))
    if opened.study != STUDY:
        raise RunError(f"{opened.name} is a run of the study {opened.study}, not of {STUDY}.")
    return opened


def _folders(run: Run) -> dict[str, Path]:
    """Of trainings that are done, by name; others may still be going on."""
    steps = PHASES if run.config.sweep.is_on else (TRAIN,)
    states = [
        (step, path.parent)
        for step in steps
        for path in sorted((run.folder / step / "shards").glob(f"*/{STATE}"))
    ]
    return {training_name(step, folder.name): folder for step, folder in states}


def _check_opens(
    run: Run, training: str, folder: Path, state: dict[str, Any]
) -> None:  # Any: JSON.
    if _has_slots(state) and state["reasoner"]["max_steps"] == 0:
        problem = "does not think at all, so that there is no step to hook"
    elif not _has_slots(state):
        problem = f"is of the arm {state['arm']}, which has no slots"
    elif not (folder / TRAINED).exists():
        problem = (
            f"left no weights, as the run has keep={run.config.keep}; with keep=all, under another "
            "--name, all stay"
        )
    else:
        return
    raise ModelError(
        f"{training} of run {run.name} {problem}. What opens is: {', '.join(_kept(run)) or 'none'}."
    )


def _kept(run: Run) -> list[str]:
    found = []
    for name, folder in _folders(run).items():
        if (folder / TRAINED).exists():
            state = read_json(folder / STATE)
            if _has_slots(state) and state["reasoner"]["max_steps"]:
                found.append(name)
    return found


def _has_slots(state: dict[str, Any]) -> bool:  # Any: JSON values.
    # Facts are of slot networks alone.
    return state["facts"] is not None


def _steps_of(thinking: ThinkingConfig, network: NetworkConfig, training: str) -> int | None:
    """As in evaluation; None leaves it to the network's halting."""
    match thinking.steps:
        case "halting":
            return None
        case "all" | "sampled":
            return network.max_steps
        case "by_depth":
            raise ConfigError(
                f"{training} was trained with thinking.steps=by_depth, {thinking.steps_per_hop} "
                "steps for each hop that a question takes, and a model thinks about all its texts "
                f"equally often. Say how often: n_steps is {thinking.steps_per_hop} times the hops "
                "of the texts that it is to read."
            )
