"""Executor: takes tasks, gives outcomes, in whatever order they come."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from threading import Event

from fluoroscope.runs.how import How
from fluoroscope.runs.process import worker_devices
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.work import Outcome, Task


class Executor(ABC):
    """Lives as long as one start of a run, so that workers keep their models between steps."""

    def __init__(self, run: Run, how: How, stop: Event) -> None:
        self.run = run
        self.how = how
        self.stop = stop

    @abstractmethod
    def outcomes(self, step: MapStep, tasks: deque[Task]) -> Iterator[Outcome]:
        """One outcome a task; the caller may add tasks (retries) between two outcomes.

        Raises `KeyboardInterrupt` soon after `stop` is set.
        """

    def close(self) -> None:  # noqa: B027 - an executor may hold nothing.
        """Ends the workers, if there are any, and whatever they still do."""

    def worker_devices(self) -> list[str]:
        """The device of each worker."""
        return worker_devices(self.how, self.run.threads)
