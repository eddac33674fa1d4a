"""Who works on a run: one main process, and the workers it started.

The kernel drops an flock when its holder dies, however it dies, so no lock is ever stale. The
main process holds `lock` alone; every worker shares `workers.lock`, by which a new start waits
for the orphans of one that was killed.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fluoroscope.core.errors import RunLockedError

MAIN = "lock"
WORKERS = "workers.lock"


@contextmanager
def main_lock(folder: Path, wait_s: float = 3.0, orphans_s: float = 15.0) -> Iterator[None]:
    """Held while working on the run; `RunLockedError` names who holds it otherwise."""
    with _open(folder / MAIN) as main:
        if not _acquire(main, fcntl.LOCK_EX, wait_s):
            raise RunLockedError(
                f"Run {folder.name} is being worked on by process {_holder(folder)}. Watch it "
                f"with `fluoro status {folder.name}`, stop it, or choose another --name."
            )
        os.ftruncate(main, 0)
        os.pwrite(main, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
        with _open(folder / WORKERS) as workers:
            if not _acquire(workers, fcntl.LOCK_EX, orphans_s):
                raise RunLockedError(
                    f"Workers of an earlier start of run {folder.name} are still at work on it. "
                    "Wait until they have ended, or end them."
                )
        yield


@contextmanager
def worker_lock(folder: Path) -> Iterator[None]:
    """Held by a worker process as long as it may write to the run."""
    with _open(folder / WORKERS) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def working_process(folder: Path) -> str | None:
    """The process that works on the run, as `PID on HOST`; None if none does."""
    if not (folder / MAIN).exists():
        return None
    with _open(folder / MAIN) as descriptor:
        free = _acquire(descriptor, fcntl.LOCK_SH, 0.0)
    return None if free else _holder(folder)


def _holder(folder: Path) -> str:
    return (folder / MAIN).read_text(encoding="utf-8").strip() or "unknown"


@contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        yield descriptor
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _acquire(descriptor: int, kind: int, wait_s: float) -> bool:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        else:
            return True


_held: set[int] = set()


def _leave_to_parent() -> None:
    # A forked child (a data loader's, say) would keep the lock alive after its parent's death.
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
