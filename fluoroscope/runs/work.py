"""Work on one shard, the same in every process that may do it.

It never raises for what went wrong inside the shard: an `Outcome` says it, so that it can cross
a pipe and be counted. Only a request to stop is an exception.
"""

import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Literal

from fluoroscope.core.errors import DoesNotFitError, FluoroscopeError, UserError
from fluoroscope.core.storage import is_full_disk
from fluoroscope.runs.manifest import begin_shard, seal_shard, state_file
from fluoroscope.runs.process import PeakMemory, fixed_threads
from fluoroscope.runs.progress import RunSink, progress_file
from fluoroscope.runs.record import load_class
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep, Shard, ShardContext


@dataclass(frozen=True)
class Task:
    """One attempt at one shard; JSON values only, so that it can be sent."""

    step: str
    key: str
    params: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values.
    inputs: Mapping[str, str] = field(default_factory=dict)
    checkpoint_s: float = 60.0
    attempt: int = 1


@dataclass(frozen=True)
class Outcome:
    task: Task
    status: Literal["done", "failed", "lost"]
    """`lost` when the process that worked on it died."""

    error_class: str | None = None
    """`module:Class` of what was raised."""

    message: str = ""
    traceback: str = ""

    def raise_if_mendable(self) -> None:
        """Raises here the `UserError` that was raised where the shard was worked on."""
        if self.error_class is None or not self.error_class.startswith("fluoroscope."):
            return
        kind: Any = UserError  # Any: a class that the next lines check.
        with suppress(UserError):
            kind = load_class(self.error_class)
        if isinstance(kind, type) and issubclass(kind, UserError):
            raise kind(self.message)


def work_on(run: Run, step: MapStep, task: Task, stop: Event) -> Outcome:
    """Does the shard, and tells the event log how it went."""
    sink = RunSink(run.folder, task.step, task.key)
    about = {"step": task.step, "shard": task.key, "attempt": task.attempt, "device": run.device}
    began, memory = time.monotonic(), PeakMemory()
    try:
        sink.log.append("shard started", **about)
        _work(run, step, task, sink, stop)
        sink.log.append("shard finished", **about, **_usage(sink, memory, _since(began)))
    except KeyboardInterrupt:
        sink.log.append_if_possible("shard stopped", **about, seconds=_since(began))
        raise
    except Exception as error:
        outcome = _failure(task, error)
        what = {"error": outcome.message, "traceback": outcome.traceback}
        sink.log.append_if_possible("shard failed", **about, **what, seconds=_since(began))
        return outcome
    finally:
        progress_file(run.folder, task.step, task.key).unlink(missing_ok=True)
    return Outcome(task, "done")


def _usage(sink: RunSink, memory: PeakMemory, seconds: float) -> dict[str, object]:
    last = sink.last
    return {
        "seconds": seconds,
        "peak_rss_bytes": memory.host_bytes(),
        "peak_gpu_bytes": memory.gpu_bytes(),
        "amount": last.done if last else None,
        "unit": last.unit if last else None,
        "rate": (last.rate or last.done / max(seconds, 1e-3)) if last else None,
    }


def _work(run: Run, step: MapStep, task: Task, sink: RunSink, stop: Event) -> None:
    step_folder = run.folder / task.step
    context = ShardContext(
        folder=begin_shard(step_folder, task.key),
        sink=sink,
        device=run.device,
        state_path=state_file(step_folder, task.key),
        checkpoint_s=task.checkpoint_s,
        stop=stop,
        inputs=task.inputs,
    )
    with fixed_threads(run.threads):
        step.work(run, Shard(task.key, task.params), context)
    seal_shard(step_folder, task.key, task.inputs)


def _failure(task: Task, error: Exception) -> Outcome:
    trace = "".join(traceback.format_exception(error))
    error = mendable(error, f"shard {task.key} of step {task.step}")
    kind = f"{type(error).__module__}:{type(error).__qualname__}"
    name = "" if isinstance(error, FluoroscopeError) else f"{type(error).__name__}: "
    return Outcome(task, "failed", kind, f"{name}{error}", trace)


def mendable(error: Exception, where: str) -> Exception:
    """A full disk or memory, however a library says it, as the error that tells what to do."""
    if isinstance(error, UserError):
        return error
    text = str(error)
    if is_full_disk(error):
        return DoesNotFitError(
            f"The disk is full: {where} could not be written ({text}). Free some space and run "
            "the same command again; it goes on where it stopped."
        )
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory or "can't allocate memory" in text:
        return DoesNotFitError(
            f"Not enough memory for {where} ({text}). Use fewer workers or smaller sizes "
            "(`fluoro plan` shows what is needed); a run under the same name goes on where it "
            "stopped."
        )
    return error


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
