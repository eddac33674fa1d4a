"""How far each shard is, now: one small file a shard, overwritten as it goes.

The terminal, `fluoro status` and a second machine all read the same files, so they see the same
whichever executor works.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fluoroscope.core.sink import Sink
from fluoroscope.runs.events import EventLog

FOLDER = "progress"


@dataclass(frozen=True)
class ShardProgress:
    step: str
    shard: str
    done: int
    total: int
    unit: str

    first: int
    """What `done` was at the first report; more than 0 for a loop that was resumed."""

    elapsed_s: float
    """Since the first report, before which models are loaded."""

    time: float
    """When this was written, seconds since 1970."""

    @property
    def rate(self) -> float | None:
        """Units a second; None before there is anything to measure."""
        gained = self.done - self.first
        return gained / self.elapsed_s if gained > 0 and self.elapsed_s > 0 else None

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None


class RunSink(Sink):
    """Writes what a shard's work reports to the run: progress files and events."""

    def __init__(self, folder: Path, step: str, shard: str, every_s: float = 0.5) -> None:
        self.log = EventLog(folder)
        self.last: ShardProgress | None = None
        self._names = (step, shard)
        self._path = progress_file(folder, step, shard)
        self._every_s = every_s
        self._began = time.monotonic()
        self._first: int | None = None
        self._written = 0.0

    def progress(self, done: int, total: int, unit: str = "items") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        step, shard = self._names
        elapsed, at = now - self._began, round(time.time(), 3)
        self.last = ShardProgress(step, shard, done, total, unit, self._first, elapsed, at)
        if now - self._written >= self._every_s:
            self._written = now
            _overwrite(self._path, json.dumps(asdict(self.last)))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        name, shard = self._names
        plain = {key: float(value) for key, value in values.items()}
        self.log.append("metrics", step=name, shard=shard, iteration=step, values=plain)

    def message(self, text: str) -> None:
        step, shard = self._names
        self.log.append("message", step=step, shard=shard, text=text)


class BothSinks(Sink):
    """Reports to two sinks: the run's own, and the caller's."""

    def __init__(self, first: Sink, second: Sink) -> None:
        self._sinks = (first, second)

    def progress(self, done: int, total: int, unit: str = "items") -> None:
        for sink in self._sinks:
            sink.progress(done, total, unit)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.metrics(step, values)

    def message(self, text: str) -> None:
        for sink in self._sinks:
            sink.message(text)


def progress_file(folder: Path, step: str, shard: str) -> Path:
    return folder / FOLDER / step / f"{shard}.json"


def clear_progress(folder: Path, step: str) -> None:
    shutil.rmtree(folder / FOLDER / step, ignore_errors=True)


def read_progress(folder: Path) -> list[ShardProgress]:
    """The shards that somebody works on, or worked on when the run was killed."""
    found: list[ShardProgress] = []
    for path in sorted((folder / FOLDER).glob("*/*.json")):
        try:
            found.append(ShardProgress(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue  # Its shard ended between the listing and the look.
    return found


def _overwrite(path: Path, text: str) -> None:
    # Not `atomic_path`: that waits for the disk, which a thing of half a second does not deserve,
    # and a disk too full for a progress file is for the artefacts to complain about.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
