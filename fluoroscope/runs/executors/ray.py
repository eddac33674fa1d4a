"""A Ray cluster: a local one that is started here, or one that exists, by address.

Each worker is an actor that rebuilds the study from the run's folder, which every machine of the
cluster must see under the same path. Nothing of ours is pickled but names and JSON values.
"""

import importlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fluoroscope.core.errors import RunError, UserError
from fluoroscope.runs.executors.base import Executor
from fluoroscope.runs.lock import worker_lock
from fluoroscope.runs.process import prepare_device, python_environment
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import open_study
from fluoroscope.runs.work import Outcome, Task, work_on

STOP_S = 0.8
"""How long workers may take to save their state when asked to stop."""


class RayExecutor(Executor):
    _ray: Any = None  # Any: the module, which is an extra.
    _owned = True
    _idle: list[Any]  # Any: actor handles.
    _busy: dict[Any, tuple[Any, Task]]  # Any: object references and actor handles.

    def outcomes(self, step: MapStep, tasks: deque[Task]) -> Iterator[Outcome]:
        if self._ray is None:
            self._connect()
        ray: Any = self._ray  # Any: the module.
        while tasks or self._busy:
            if self.stop.is_set():
                raise KeyboardInterrupt
            while tasks and self._idle:
                actor, task = self._idle.pop(), tasks.popleft()
                self._busy[actor.work.remote(asdict(task))] = (actor, task)
            ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=0.1)
            for reference in ready:
                yield self._outcome(reference)

    def _outcome(self, reference: Any) -> Outcome:  # Any: see above.
        actor, task = self._busy.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._idle.append(self._actor())
            lines = str(error).strip().splitlines()
            message = f"its Ray worker died: {' ... '.join(dict.fromkeys([lines[0], lines[-1]]))}"
            return Outcome(task, "lost", message=message)
        except self._ray.exceptions.RayTaskError as error:
            raise RunError(f"A Ray worker could not open the run: {error.cause!r}.") from None
        self._idle.append(actor)
        return Outcome(**{**answer, "task": task})

    def _connect(self) -> None:
        ray = _import_ray()
        self._owned = not ray.is_initialized()
        if self._owned:
            self._initialize(ray)
        self._ray, self._busy = ray, {}
        self._devices = deque(self._cluster_devices(ray))
        self._idle = [self._actor() for _ in range(len(self._devices))]

    def _initialize(self, ray: Any) -> None:  # Any: the module.
        cpus = len(self.worker_devices()) * self.run.threads
        # "local" starts a cluster even where another one runs on this machine.
        local = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        where = {"address": self.how.ray_address} if self.how.ray_address else local
        try:
            ray.init(
                **where,
                runtime_env={"env_vars": python_environment(self.run.threads)},
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            at = self.how.ray_address or "this machine"
            raise RunError(
                f"There is no Ray cluster to work with at {at}: {error}. Is it up (`ray status`)? "
                "One that asks for a token needs RAY_AUTH_MODE=token here too."
            ) from None

    def _cluster_devices(self, ray: Any) -> list[str]:  # Any: the module.
        if self.how.ray_address is None:
            return self.worker_devices()
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        if gpus and self.how.devices != "cpu":
            # Ray shows each worker its own GPU, under the first name.
            return ["cuda:0"] * (self.how.workers or gpus)
        return ["cpu"] * (self.how.workers or max(1, cpus // self.run.threads))

    def _actor(self) -> Any:  # Any: an actor handle.
        device = self._devices[0]
        self._devices.rotate(-1)
        by_ray = self.how.ray_address is not None and device != "cpu"
        options = {"num_cpus": self.run.threads, "num_gpus": int(by_ray), "max_concurrency": 2}
        kind = self._ray.remote(**options)(ShardWorker)
        return kind.remote(str(self.run.folder.resolve()), device, str(Path.cwd()))

    def close(self) -> None:
        if self._ray is None:
            return
        if self._busy:
            asked = [actor.ask_to_stop.remote() for actor, _ in self._busy.values()]
            self._ray.wait(asked, num_returns=len(asked), timeout=0.2)
            self._ray.wait(list(self._busy), num_returns=len(self._busy), timeout=STOP_S)
        # Left to die with this process when the user waits for it to end.
        if self._owned and not self.stop.is_set():
            self._ray.shutdown()


class ShardWorker:
    """Lives in a Ray worker process; two threads, one to work and one to be asked to stop."""

    def __init__(self, folder: str, device: str, working_folder: str) -> None:
        if Path(working_folder).is_dir():
            os.chdir(working_folder)
        self._stop = threading.Event()
        self._stack = ExitStack()
        self._stack.enter_context(worker_lock(Path(folder)))
        prepare_device(device)
        self._run, study = open_study(Path(folder), device)
        self._steps = {step.name: step for step in study.steps(self._run.config)}

    def work(self, task: dict[str, Any]) -> dict[str, Any]:  # Any: JSON values.
        made = Task(**task)
        try:
            return asdict(work_on(self._run, self._steps[made.step], made, self._stop))
        except KeyboardInterrupt:
            return asdict(Outcome(made, "lost", message="it was asked to stop"))

    def ask_to_stop(self) -> None:
        self._stop.set()


def _import_ray() -> Any:  # Any: the module.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On one machine we hand out the GPUs ourselves; Ray would hide those it did not.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UserError(
            "executor=ray needs Ray, which is an extra: pip install 'fluoroscope[ray]'."
        ) from None
