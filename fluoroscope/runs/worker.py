"""A worker process: `python -m fluoroscope.runs.worker FOLDER DEVICE PARENT_PID`.

It rebuilds the study from the run's folder, takes tasks as JSON lines on standard input, and
answers with outcomes on standard output. It dies with its parent, and at the end of its input.
"""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

PR_SET_PDEATHSIG = 1


def main() -> None:
    folder, device, parent = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    _die_with(parent)
    # What a library prints goes to the log; the pipe is for outcomes alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Ctrl-C reaches the parent, which passes it on as a request to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    tasks: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, tasks, stop), daemon=True).start()
    _serve(folder, device, tasks, stop, answers)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It died before it could take us along.


def _read(lines: TextIO, tasks: "queue.Queue[str]", stop: threading.Event) -> None:
    for line in lines:
        if line.strip() == "stop":
            stop.set()
        else:
            tasks.put(line)
    # The parent has closed the pipe, or died: nobody waits for what this process does.
    os._exit(0)


def _serve(
    folder: Path,
    device: str,
    tasks: "queue.Queue[str]",
    stop: threading.Event,
    answers: TextIO,
) -> None:
    # Imported after the threads of every library were fixed by the environment.
    from fluoroscope.runs.lock import worker_lock
    from fluoroscope.runs.process import prepare_device
    from fluoroscope.runs.study import open_study
    from fluoroscope.runs.work import Task, work_on

    with worker_lock(folder):
        prepare_device(device)
        run, study = open_study(folder, device)
        steps = {step.name: step for step in study.steps(run.config)}
        for task in (Task(**json.loads(line)) for line in _each(tasks)):
            try:
                outcome = work_on(run, steps[task.step], task, stop)
            except KeyboardInterrupt:
                os._exit(0)
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()


def _each(tasks: "queue.Queue[str]") -> Iterator[str]:
    while True:
        yield tasks.get()


if __name__ == "__main__":
    main()
