"""In this process, one shard after the other: the simplest, and what the others are held to."""

from collections import deque
from collections.abc import Iterator

from fluoroscope.runs.executors.base import Executor
from fluoroscope.runs.process import prepare_device
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.work import Outcome, Task, work_on


class LocalExecutor(Executor):
    def outcomes(self, step: MapStep, tasks: deque[Task]) -> Iterator[Outcome]:
        self.run.device = self.worker_devices()[0]
        prepare_device(self.run.device)
        while tasks:
            if self.stop.is_set():
                raise KeyboardInterrupt
            yield work_on(self.run, step, tasks.popleft(), self.stop)
