"""The run engine: does what is not done yet, in order, and never loses what is.

Continuing is the normal case: `execute` looks at the folder, passes over whatever is whole and
belongs to these settings, and does the rest. Who does it (`How`) makes no difference to a byte.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import RunError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.storage import full_disk_named, sha256_file
from fluoroscope.runs import manifest
from fluoroscope.runs.device_sharing import with_workers
from fluoroscope.runs.events import EventLog
from fluoroscope.runs.executors import EXECUTORS
from fluoroscope.runs.executors.base import Executor
from fluoroscope.runs.how import How
from fluoroscope.runs.interrupt import stop_on_signals
from fluoroscope.runs.lock import main_lock
from fluoroscope.runs.plan import prepare_start
from fluoroscope.runs.process import fixed_threads
from fluoroscope.runs.progress import BothSinks, RunSink, clear_progress
from fluoroscope.runs.record import check_name, runs_root
from fluoroscope.runs.run import DONE, Run
from fluoroscope.runs.selection import selected
from fluoroscope.runs.start import check_unused, start_run
from fluoroscope.runs.step import MapStep, Shard
from fluoroscope.runs.study import Study
from fluoroscope.runs.work import Outcome, Task, mendable

MAX_LOST = 2
"""How often a shard is taken up again after the process that worked on it died."""

REPORT_FILES = ("report.html", "tables", "figures")


def execute(
    study: Study[Config, Config],
    spec: Config,
    name: str,
    how: How | None = None,
    sink: Sink = SILENT,
    *,
    root: Path | None = None,
    arguments: Sequence[str] = (),
    stop: Event | None = None,
    until: str | None = None,
    only: Sequence[str] = (),
) -> Run:
    """Runs or continues `study` under `name`, and returns the finished run.

    Ctrl-C is caught while it works, unless `stop` is given: then whoever sets it is obeyed.
    `until` names the last step to do, `only` the steps to do (with all that they stand on); a
    later start without them does the rest.
    """
    how = how or How()
    check_name(name, "Run")
    folder = (root or runs_root()) / name
    config = study.resolve(spec)
    # Through JSON, as workers see it, so that a setting that does not survive it fails here.
    config = build(type(config), config.model_dump(mode="json"))
    steps = _checked(study.steps(config))
    wanted = selected(steps, until, only, study.phases)
    for step in steps:
        # What cannot be made is refused here, before there is a folder.
        step.cost()
    sources = study.sources(config)
    check_unused(folder)
    with _stopping(stop) as stop, full_disk_named(folder), main_lock(_folder(folder)):
        log = start_run(folder, study, spec, config, sources, steps, how, arguments)
        run = Run(folder, study.name, config)
        how = with_workers(how, wanted, folder, run.threads)
        engine = _Engine(run, how, log, sink, stop)
        try:
            prepare_start(wanted, folder, how, engine.run.threads, log)
            engine.work(wanted)
            engine.report(study, steps)
        except KeyboardInterrupt:
            log.append_if_possible("run stopped")
            raise
        except Exception as error:
            named = mendable(error, f"run {name}")
            log.append_if_possible("run failed", error=str(named), kind=type(named).__name__)
            if named is error:
                raise
            raise named from error
        log.append("run finished" if len(wanted) == len(steps) else "part finished")
    return engine.run


@contextmanager
def _stopping(stop: Event | None) -> Iterator[Event]:
    if stop is not None:
        yield stop
        return
    with stop_on_signals() as own:
        yield own


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"The run folder {folder} cannot be made: {error}. Choose another place for runs by "
            "setting FLUOROSCOPE_RUNS."
        ) from None
    return folder


def _checked(steps: Sequence[MapStep]) -> Sequence[MapStep]:
    names: list[str] = []
    for step in steps:
        check_name(step.name, "Step")
        unknown = [name for name in step.inputs if name not in names]
        if step.name in names or unknown or step.name in (*REPORT_FILES, "report", "progress"):
            raise ValueError(
                f"Step {step.name!r} must have a name of its own and inputs among the steps before "
                f"it ({', '.join(names) or 'none'}), got inputs {step.inputs}."
            )
        names.append(step.name)
    return steps


class _Engine:
    """One start of a run."""

    def __init__(self, run: Run, how: How, log: EventLog, sink: Sink, stop: Event) -> None:
        self.run = run
        self.how = how
        self.log = log
        self.sink = sink
        self.stop = stop
        self._executor: Executor | None = None

    def work(self, steps: Sequence[MapStep]) -> None:
        try:
            for step in steps:
                self._do_step(step)
        finally:
            if self._executor is not None:
                self._executor.close()

    def _do_step(self, step: MapStep) -> None:
        folder = self.run.folder / step.name
        inputs = self._manifests(step.inputs)
        if manifest.step_is_done(folder, inputs, verify=self.how.verify):
            self.log.append("step was done", step=step.name)
            self.sink.message(f"{step.name}: done before.")
            return
        shards = _checked_shards(step, step.shards(self.run))
        manifest.tidy_step(folder, {shard.key for shard in shards}, inputs)
        clear_progress(self.run.folder, step.name)
        to_do = [shard for shard in shards if not self._is_whole(folder, shard, inputs)]
        began = time.monotonic()
        n_done = len(shards) - len(to_do)
        self.log.append("step started", step=step.name, n_shards=len(shards), n_done=n_done)
        tasks = [
            Task(step.name, shard.key, dict(shard.params), inputs, self.how.checkpoint_s)
            for shard in to_do
        ]
        if tasks:
            self._do_shards(step, tasks, n_done)
        self._check_stop()
        with fixed_threads(self.run.threads):
            step.merge(self.run, folder, self._own_sink(step.name, "merge"))
        manifest.seal_step(folder, inputs)
        clear_progress(self.run.folder, step.name)
        seconds = round(time.monotonic() - began, 3)
        disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.log.append("step finished", step=step.name, seconds=seconds, disk_bytes=disk)

    def _is_whole(self, folder: Path, shard: Shard, inputs: dict[str, str]) -> bool:
        return manifest.shard_is_whole(folder, shard.key, inputs, verify=self.how.verify)

    def _manifests(self, steps: Sequence[str]) -> dict[str, str]:
        return {name: sha256_file(self.run.step_folder(name) / DONE) for name in steps}

    def _do_shards(self, step: MapStep, tasks: list[Task], n_done: int) -> None:
        if self._executor is None:
            kind = EXECUTORS.load(self.how.executor)
            self._executor = kind(self.run, self.how, self.stop)
        queue = deque(tasks)
        total = n_done + len(tasks)
        failed: list[Outcome] = []
        lost: dict[str, int] = {}
        for outcome in self._executor.outcomes(step, queue):
            outcome.raise_if_mendable()
            if outcome.status == "done":
                n_done += 1
                self.sink.progress(n_done, total, f"shards of {step.name}")
                continue
            retry = self._retry(outcome, lost)
            if retry is None:
                failed.append(outcome)
            else:
                queue.append(retry)
        if failed:
            raise RunError(_failure_message(step, failed, total, self.run))

    def _retry(self, outcome: Outcome, lost: dict[str, int]) -> Task | None:
        task = outcome.task
        if outcome.status == "lost":
            lost[task.key] = lost.get(task.key, 0) + 1
            self.log.append("shard lost", step=task.step, shard=task.key, error=outcome.message)
            return task if lost[task.key] <= MAX_LOST else None
        return replace(task, attempt=task.attempt + 1) if task.attempt <= self.how.retries else None

    def report(self, study: Study[Config, Config], steps: Sequence[MapStep]) -> None:
        """Of all `steps`, or of a part of them where the study can tell of a part."""
        done = [step for step in steps if (self.run.folder / step.name / DONE).exists()]
        is_part = len(done) < len(steps)
        if is_part and not study.reports_parts:
            return
        inputs = self._manifests([step.name for step in done])
        if not is_part and manifest.report_is_done(self.run.folder, inputs):
            return
        self._check_stop()
        (self.run.folder / DONE).unlink(missing_ok=True)
        self.log.append("report started")
        with fixed_threads(self.run.threads):
            study.report(self.run, self._own_sink("report", "all"))
        clear_progress(self.run.folder, "report")
        # Without its manifest a run is not taken for finished, and its report is written again.
        if not is_part:
            manifest.write_report_manifest(self.run.folder, inputs, REPORT_FILES)

    def _own_sink(self, step: str, part: str) -> Sink:
        return BothSinks(RunSink(self.run.folder, step, part), self.sink)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt


def _checked_shards(step: MapStep, shards: Sequence[Shard]) -> Sequence[Shard]:
    keys = [shard.key for shard in shards]
    for key in keys:
        check_name(key, f"Shard of step {step.name}")
    if len(set(keys)) < len(keys):
        raise ValueError(f"Step {step.name} has two shards of one key: {sorted(keys)}.")
    return shards


def _failure_message(step: MapStep, failed: list[Outcome], total: int, run: Run) -> str:
    lines = [
        f"{len(failed)} of {total} shards of step {step.name} failed, so the step is not put "
        "together and nothing is reported:"
    ]
    lines += [f"  {outcome.task.key}: {outcome.message}" for outcome in failed[:5]]
    if len(failed) > 5:
        lines.append(f"  and {len(failed) - 5} more")
    log = os.path.relpath(run.folder / "events.jsonl")
    lines.append(
        f"{log} has the tracebacks. The other shards are kept; the same command tries the failed "
        "ones again."
    )
    return "\n".join(lines)
