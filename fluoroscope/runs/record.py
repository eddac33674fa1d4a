"""run.json: what a run is, whole enough that a new process rebuilds it from the folder alone."""

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fluoroscope.core.config import Config, Settings, build, settings_hash, what_half
from fluoroscope.core.errors import ConfigError, DamagedError, RunError
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.how import How

FILE = "run.json"
FORMAT = 1


class StepRecord(Config):
    name: str
    inputs: tuple[str, ...]
    cost: Settings
    """The step's `Cost`, as it was estimated before the run began."""


class RunRecord(Config):
    format: int = FORMAT

    study: str
    """Name of the study, as on the command line."""

    study_class: str
    """`module:Class` of the study."""

    spec_class: str
    config_class: str

    spec: Settings
    """The settings as given."""

    config: Settings
    """The settings as resolved; what the work depends on."""

    sources: Mapping[str, str] = {}
    """Fingerprints of what is read from outside; see `Study.sources`."""

    how: How
    """How the latest start works; every start's is in the event log."""

    arguments: tuple[str, ...]
    """The command line of the latest start; empty when called from Python."""

    steps: tuple[StepRecord, ...]
    provenance: Settings
    """Code revision, package versions, hardware and time of the first start."""


def write_record(folder: Path, record: RunRecord) -> None:
    write_json(folder / FILE, record.model_dump(mode="json"))


def read_record(folder: Path) -> RunRecord:
    if not (folder / FILE).exists():
        raise RunError(f"{folder} is not a run: it has no {FILE}. `fluoro list` shows the runs.")
    try:
        return build(RunRecord, read_json(folder / FILE))
    except (DamagedError, ConfigError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{folder / FILE} is not one that this version writes ({error}). Restore it, or start "
            "the run anew under another --name."
        ) from None


def class_reference(kind: type) -> str:
    """`module:Class`, by which another process finds `kind` again."""
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise RunError(
            f"{kind.__qualname__} must stand at the top of a module that can be imported, because "
            "worker processes and later starts rebuild the run from its name."
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def load_class(reference: str) -> Any:  # Any: a class, checked by whoever asked for it.
    module, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)  # Any: see above.
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise RunError(
            f"The run was made by {reference}, which cannot be imported here: {error}. "
            "Install or put on PYTHONPATH what it was made with."
        ) from error
    return found


def check_name(name: str, what: str) -> None:
    """Names of runs, steps and shards are names of folders."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RunError(
            f"{what} {name!r} cannot name a folder: use letters, digits, '.', '_' and '-', "
            "and begin with a letter or a digit."
        )


def runs_root() -> Path:
    """$FLUOROSCOPE_RUNS, else ./runs."""
    return Path(os.environ.get("FLUOROSCOPE_RUNS") or "runs")


def default_name(study: str, spec: Config) -> str:
    """The study and a short hash of what was asked: the same command is the same run."""
    return f"{study}-{settings_hash(what_half(spec))[:8]}"


def flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """`{"sae": {"k": 16}}` -> `("sae.k", 16)`."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
