"""A finished run's trainings for Weights & Biases, one run there for each; offline by default.

Written from the run when it is done, so that a training that was killed and went on is one run
there. JSON lines of the same are in events.jsonl in any case. Ids are of the run and the training:
writing again replaces what is offline, and what was sent already is not sent twice.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from fluoroscope.core.config import Config, settings_hash, what_half
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.runs.record import FILE, read_record
from fluoroscope.runs.run import Run

FOLDER = "wandb"

_LONGEST_TAG = 64

Values = Mapping[str, Any]  # Any: numbers and texts of tables.
More = Callable[[Any, int], None]  # Any: a run of the package, which has no stubs.
Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One training as it is written there."""

    id: str
    """Of `training_id`."""

    project: str
    """Unless $WANDB_PROJECT is set."""

    name: str
    tags: Sequence[str]
    settings: Values

    curve: Sequence[tuple[int, Values]]
    """Numbers by step; steps rise."""

    test: Values
    """Scores of the test side: `TEST/NAME`, and the row of the table `TEST_Result`."""

    summary: Values = field(default_factory=dict)
    """Other numbers of the whole training."""

    more: More | None = None
    """Writes what this training alone has, given the run there and the first free step."""


def check_wandb(setting: str) -> None:
    """Raises `ConfigError` where the package is not installed or WANDB_MODE is none; to be asked
    before training. `setting` is what asked for it.
    """
    if find_spec("wandb") is None:
        raise ConfigError(
            f"{setting}=true needs the package wandb, which is not installed here: "
            "`pip install 'fluoroscope[wandb]'`. Without it, events.jsonl of the run has the same "
            "numbers."
        )
    _mode()


def training_id(run: Run, config: Config, *training: object) -> str:
    """The same whenever it is written; `training` is what tells it from others of the run."""
    what = [run.name, what_half(config), *training]
    return hashlib.sha256(settings_hash(what).encode()).hexdigest()[:16]


def training_tags(run: Run, *tags: str) -> tuple[str, ...]:
    """Cut to the length that is allowed; behind them the commit that the run began with."""
    is_recorded = (run.folder / FILE).exists()
    code = (read_record(run.folder).provenance.get("code") or {}) if is_recorded else {}
    commit = [f"GIT:{str(code['revision'])[:7]}"] if code else []
    return tuple(tag[:_LONGEST_TAG] for tag in (*tags, *commit))


def write_runs(run: Run, all_logged: Iterable[Logged], sink: Sink = SILENT) -> int:
    """Into `wandb/` in the run's folder; the number of runs there. Not sent anywhere, unless
    WANDB_MODE is `online`; WANDB_PROJECT and WANDB_ENTITY go before our own names.
    """
    # All is read before anything older is removed.
    mode, trainings = _mode(), list(all_logged)
    shutil.rmtree(run.folder / FOLDER / "data", ignore_errors=True)
    with _environment(run.folder / FOLDER):
        for one in trainings:
            _write(run, one, mode)
    sink.message(f"Written for Weights & Biases: {len(trainings)} runs")
    return len(trainings)


def _mode() -> Mode:
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in ("online", "offline", "disabled"):
        raise ConfigError(f"WANDB_MODE is online, offline or disabled, got {mode!r}.")
    return mode


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Artifacts wait in the run's folder, not in the user's home; the package's own errors are
    told to nobody.
    """
    wanted = {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_ERROR_REPORTING": "false"}
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def _write(run: Run, one: Logged, mode: Mode) -> None:
    import wandb

    for old in (run.folder / FOLDER).glob(f"offline-run-*-{one.id}"):
        shutil.rmtree(old)
    logged = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or one.project,
        entity=os.environ.get("WANDB_ENTITY") or None,
        id=one.id,
        name=one.name,
        group=run.name,
        tags=tuple(one.tags),
        config=dict(one.settings),
        dir=str(run.folder),
        mode=mode,
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True
        ),
    )
    with logged:
        # A step that is there already is not taken again.
        for step, values in one.curve:
            logged.log(dict(values), step=step)
        last = one.curve[-1][0] + 1
        whole = {**{f"TEST/{name}": value for name, value in one.test.items()}, **one.summary}
        table = wandb.Table(list(one.test), [list(one.test.values())])
        logged.log({**whole, "TEST_Result": table}, step=last)
        logged.summary.update(whole)
        if one.more is not None:
            one.more(logged, last + 1)
