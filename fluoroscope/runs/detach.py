"""`--detach`: the run goes on without the terminal, in a session of its own, and logs to a file."""

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from fluoroscope.core.errors import RunError
from fluoroscope.runs.events import EventTail
from fluoroscope.runs.lock import working_process
from fluoroscope.runs.record import check_name

LOG = "log.txt"
WAIT_S = 30.0


def start_detached(folder: Path, command: Sequence[str]) -> str:
    """Starts `command`, waits until it works on the run in `folder`, and says how to follow it.

    What goes wrong at once (a lock, a changed setting) is raised here, as without `--detach`.
    """
    check_name(folder.name, "Run")
    if holder := working_process(folder):
        raise RunError(f"Run {folder.name} is being worked on already, by process {holder}.")
    folder.mkdir(parents=True, exist_ok=True)
    events, log = EventTail(folder), folder / LOG
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and process.poll() is None:
        if any(event["event"] == "run started" for event in events.new()):
            break
        time.sleep(0.1)
    if process.poll():
        text = log.read_bytes()[begin:].decode(errors="replace").strip()
        raise RunError(text or f"The run ended with exit code {process.returncode}; see {log}.")
    return _how_to_follow(folder, process.pid)


def _how_to_follow(folder: Path, pid: int) -> str:
    name, log = shlex.quote(folder.name), shlex.quote(str(folder / LOG))
    return (
        f"Run {folder.name} goes on as process {pid}.\n"
        f"  watch   fluoro status {name} --follow\n"
        f"  log     tail -f {log}\n"
        f"  stop    kill -TERM {pid}   (the same command goes on later)"
    )
