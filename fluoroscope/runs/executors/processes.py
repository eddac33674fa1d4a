"""Worker processes on this machine, one device each, fed with tasks over pipes.

A worker that dies (out of memory, `kill -9`) loses its shard to the queue and is replaced; all
workers die with this process, however it dies.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import IO

from fluoroscope.core.errors import RunError
from fluoroscope.runs.executors.base import Executor
from fluoroscope.runs.process import python_environment
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.work import Outcome, Task

LOG = "workers.log"
STOP_S = 0.9
"""How long workers may take to save their state when asked to stop."""


class ProcessExecutor(Executor):
    _workers: list["_Worker"] | None = None

    def outcomes(self, step: MapStep, tasks: deque[Task]) -> Iterator[Outcome]:
        if self._workers is None:
            self._workers = [_Worker(self, device) for device in self.worker_devices()]
        workers = self._workers
        while tasks or any(worker.task for worker in workers):
            if self.stop.is_set():
                self.close()
                raise KeyboardInterrupt
            for worker in workers:
                if worker.task is None and tasks:
                    worker.begin(tasks.popleft())
            yield from _wait([worker for worker in workers if worker.task])

    def close(self) -> None:
        workers, self._workers = self._workers or [], None
        for worker in workers:
            worker.ask_to_stop()
        until = time.monotonic() + STOP_S
        for worker in workers:
            worker.end(until)


class _Worker:
    """One process and the task it has; started when it is first needed."""

    def __init__(self, executor: Executor, device: str) -> None:
        self.task: Task | None = None
        self._run = executor.run
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = b""
        self._has_answered = False

    @property
    def output(self) -> int:
        return _pipe(_running(self._process).stdout).fileno()

    def begin(self, task: Task) -> None:
        if self._process is None:
            self._process = self._start()
        self.task = task
        # A worker that is dead already shows it when its answer is read.
        with suppress(BrokenPipeError):
            self._write(json.dumps(asdict(task)))

    def read(self) -> Outcome | None:
        """The outcome of the task, once all of it has come; `lost` where the process died."""
        data = os.read(self.output, 65536)
        task = self.task
        if task is None:
            return None
        if not data:
            return self._lost(task)
        self._answers += data
        line, newline, rest = self._answers.partition(b"\n")
        if not newline:
            return None
        self._answers, self.task, self._has_answered = rest, None, True
        return Outcome(**{**json.loads(line), "task": task})

    def ask_to_stop(self) -> None:
        if self._process is not None and self.task is not None:
            with suppress(BrokenPipeError):
                self._write("stop")
        elif self._process is not None:
            self._process.kill()

    def end(self, until: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)

    def _lost(self, task: Task) -> Outcome:
        process = _running(self._process)
        code = process.wait()
        _close(process)
        self._process, self._answers, self.task = None, b"", None
        log = self._run.folder / LOG
        if code > 0 and not self._has_answered:
            raise RunError(f"A worker process could not start (exit code {code}): see {log}.")
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = ", as when memory runs out" if code == -signal.SIGKILL else ""
        return Outcome(task, "lost", message=f"its worker process died ({cause}{hint}); see {log}")

    def _write(self, line: str) -> None:
        pipe = _pipe(_running(self._process).stdin)
        pipe.write(line.encode() + b"\n")
        pipe.flush()

    def _start(self) -> "subprocess.Popen[bytes]":
        module = "fluoroscope.runs.worker"
        folder = str(self._run.folder.resolve())
        command = [sys.executable, "-P", "-m", module, folder, self._device, str(os.getpid())]
        self._has_answered = False
        with (self._run.folder / LOG).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **python_environment(self._run.threads)},
                # Ctrl-C in the terminal is for this process alone.
                start_new_session=True,
            )


def _wait(workers: list[_Worker]) -> Iterator[Outcome]:
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.output, selectors.EVENT_READ, worker)
        for key, _ in selector.select(timeout=0.1):
            if outcome := key.data.read():
                yield outcome


def _running(process: "subprocess.Popen[bytes] | None") -> "subprocess.Popen[bytes]":
    assert process is not None, "the worker has not been started"
    return process


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the worker was started without a pipe"
    return pipe


def _close(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            _pipe(pipe).close()
