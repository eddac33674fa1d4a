"""Stopping when asked to: softly at first, surely within two seconds.

Ctrl-C (or SIGTERM, as schedulers send it) sets a flag, on which loops save their state and end.
Who has not ended after a second is interrupted where it stands; a main thread deep in native
code does not hear even that, so the command line then leaves without it. Nothing is lost
either way, since a run survives `kill -9`.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SOFT_S = 1.0
HARD_S = 0.7


@contextmanager
def stop_on_signals(leave: Callable[[int], None] | None = None) -> Iterator[threading.Event]:
    """The flag that Ctrl-C sets; `leave(signal)` is called if nothing else stops the work.

    Outside the main thread signals cannot be caught, and the flag is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    ended = threading.Event()
    # The wake-up pipe is written by the C handler, hence also while native code runs.
    old_wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    old_handlers = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGINT, _Patience()),
            (signal.SIGTERM, _Patience()),
            (signal.SIGALRM, _interrupt),
        )
    }
    watcher = threading.Thread(target=_watch, args=(read_end, stop, ended, leave), daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        ended.set()
        signal.set_wakeup_fd(old_wakeup)
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        os.close(write_end)
        watcher.join()
        os.close(read_end)


class _Patience:
    """The first signal is left to the watcher; a second one is somebody in a hurry."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch(
    read_end: int,
    stop: threading.Event,
    ended: threading.Event,
    leave: Callable[[int], None] | None,
) -> None:
    while data := os.read(read_end, 64):
        asked = [number for number in data if number in (signal.SIGINT, signal.SIGTERM)]
        if not asked or stop.is_set():
            continue
        stop.set()
        if not ended.wait(SOFT_S):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        if not ended.wait(HARD_S) and leave is not None:
            leave(asked[0])
