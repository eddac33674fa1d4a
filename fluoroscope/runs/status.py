"""How far a run is, now: steps, shards at work, time left, memory and disk."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import polars
import psutil
from rich.console import Group, RenderableType
from rich.text import Text

from fluoroscope.core.storage import free_bytes
from fluoroscope.runs.events import Event, read_events
from fluoroscope.runs.gpus import gpu_use
from fluoroscope.runs.ledger import run_state, worked_seconds
from fluoroscope.runs.lock import working_process
from fluoroscope.runs.manifest import SHARD, SHARDS
from fluoroscope.runs.progress import ShardProgress, read_progress
from fluoroscope.runs.record import read_record
from fluoroscope.runs.run import DONE
from fluoroscope.runs.tables import frame_table
from fluoroscope.runs.terminal import describe, duration, event_text, size

_STEPS = {
    "step": polars.String,
    "state": polars.String,
    "shards": polars.String,
    "left_s": polars.Float64,
}


def status_text(folder: Path) -> Group:
    """The whole picture for a terminal."""
    events, progress = read_events(folder), read_progress(folder)
    state, holder = run_state(folder), working_process(folder)
    head = f"{folder.name}: {state}{f' (process {holder})' if holder else ''}, "
    head += f"{duration(worked_seconds(folder))} at work"
    parts: list[RenderableType] = [Text(head, style="bold")]
    parts.append(frame_table(step_states(folder, events, progress, is_working=bool(holder))))
    if holder:
        parts += [Text(f"  {one.step}/{one.shard}: {describe(one)}") for one in progress[:16]]
    parts += [Text(line) for line in _machine(folder, holder)]
    if state == "failed":
        parts.append(Text(_last_failure(events), style="red"))
    elif state != "done":
        parts += [Text(f"  {text}", style="dim") for text in _latest(events)]
    return Group(*parts)


def step_states(
    folder: Path, events: Sequence[Event], progress: Sequence[ShardProgress], *, is_working: bool
) -> polars.DataFrame:
    """A row for every step: done, working or waiting; shards done of all; time left."""
    started = {event["step"]: event for event in events if event["event"] == "step started"}
    rows: list[Mapping[str, object]] = []
    for step in read_record(folder).steps:
        n_done = len(list((folder / step.name / SHARDS).glob(f"*/{SHARD}")))
        n_shards = started[step.name]["n_shards"] if step.name in started else None
        is_done = (folder / step.name / DONE).exists()
        is_now = is_working and not is_done and step.name == _current(events)
        mine = [one for one in progress if one.step == step.name]
        rows.append(
            {
                "step": step.name,
                "state": "done" if is_done else "working" if is_now else "waiting",
                "shards": f"{n_done}/{n_shards}" if n_shards is not None else "-",
                "left_s": _left(events, mine, step.name, n_done, n_shards) if is_now else None,
            }
        )
    return polars.DataFrame(rows, schema=_STEPS)


def _current(events: Sequence[Event]) -> str | None:
    started = [event["step"] for event in events if event["event"] == "step started"]
    return started[-1] if started else None


def _left(
    events: Sequence[Event],
    progress: Sequence[ShardProgress],
    step: str,
    n_done: int,
    n_shards: int | None,
) -> float | None:
    """What the shards at work need, and the waiting ones after them at the mean of those done."""
    known = [one.left_s for one in progress if one.left_s is not None]
    waiting = (n_shards or 0) - n_done - len(progress)
    seconds = [
        event["seconds"]
        for event in events
        if event["event"] == "shard finished" and event["step"] == step
    ]
    if waiting > 0 and seconds:
        mean = sum(seconds) / len(seconds)
        return max(known, default=0.0) + mean * waiting / max(1, len(progress))
    return max(known, default=None) if waiting <= 0 else None


def _machine(folder: Path, holder: str | None) -> list[str]:
    used = sum(path.stat().st_size for path in _files(folder))
    lines = [f"  disk: {size(used)} used by the run, {size(free_bytes(folder))} free"]
    if holder:
        memory = psutil.virtual_memory()
        own = _memory_of(holder)
        text = f"{size(own)} used by the run, " if own else ""
        lines.append(f"  memory: {text}{size(memory.available)} of {size(memory.total)} free")
    return lines + [f"  {line}" for line in gpu_use()]


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        # A shard at work may be renamed between the listing and the look.
        with suppress(FileNotFoundError):
            if path.is_file() and path.stat():
                found.append(path)
    return found


def _memory_of(holder: str) -> int:
    """Resident memory of the main process and its children; 0 if it is on another machine."""
    total = 0
    with suppress(psutil.Error, ValueError):
        main = psutil.Process(int(holder.split()[0]))
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _last_failure(events: Sequence[Event]) -> str:
    return next(event["error"] for event in reversed(events) if event["event"] == "run failed")


def _latest(events: Sequence[Event]) -> list[str]:
    texts = [event_text(event) for event in events[-200:]]
    return [text for text in texts if text][-5:]
