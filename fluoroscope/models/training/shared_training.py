"""One training, shared by several processes of this machine: a trainer from outside.

    with SharedTrainer("package:function", {}, ["cuda:0", "cuda:1"], folder, Trained) as one:
        for iteration in range(one.n_iterations):
            one.advance(iteration, sink)
        trained = one.result()

`function(**arguments, device=...)` makes the trainer of each process. Every step is asked of
all processes at once, and a state is that of a trainer alone, so a study puts it down and takes it
up as any other loop. The processes end with this one, however it ends.

They are started here and not by `accelerate launch`, which on CPUs starts several only by MPI;
inside, accelerate joins them, by NCCL on GPUs and by gloo on CPUs.
"""

import json
import os
import secrets
import selectors
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar

import torch

from fluoroscope.core import errors
from fluoroscope.core.errors import ConfigError, RunError, UserError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State, read_state, write_state

ResultT = TypeVar("ResultT")

LOG = "shared_training.log"
_PROCESS = "fluoroscope.models.training.sharing_process"
_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_END_S = 5.0
"""How long processes may take to end when nothing more is asked of them."""


class SharedTrainer(Generic[ResultT]):
    """`devices`, one for each process: all `cpu`, or GPUs that differ.

    `arguments` are JSON; `result` is the tuple that a trainer's `result` gives. `folder` holds
    their log, and states on their way between processes; `threads` is of each process. An error of
    one is raised here as the `UserError` it was.
    """

    def __init__(
        self,
        make: str,
        arguments: Mapping[str, Any],  # Any: JSON values.
        devices: Sequence[str],
        folder: Path,
        result: Callable[..., ResultT],
        *,
        threads: int = 1,
    ) -> None:
        _check_devices(devices)
        self._folder, self._result = folder.resolve(), result
        self._folder.mkdir(parents=True, exist_ok=True)
        meeting = self._folder / f"meeting-{secrets.token_hex(8)}"
        begin = {
            "make": make,
            "arguments": dict(arguments),
            "meeting": str(meeting),
            "threads": threads,
            "is_deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        self._processes = [
            _start(rank, devices, threads, self._folder / LOG) for rank in range(len(devices))
        ]
        # Also where it is dropped without being closed.
        self._end = weakref.finalize(self, _end, self._processes)
        try:
            self.n_iterations = int(self._ask("begin", **begin))
        finally:
            meeting.unlink(missing_ok=True)

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        """As the trainer does, in all processes."""
        for what, *values in self._ask("advance", iteration=iteration):
            if what == "metrics":
                sink.metrics(values[0], values[1])
            else:
                sink.message(values[0])

    def state(self) -> State:
        return self._fetched("state")

    def load(self, state: State) -> None:
        path = self._path()
        write_state(path, state)
        self._ask("load", path=str(path))
        path.unlink()

    def result(self) -> ResultT:
        return self._result(**self._fetched("result"))

    def close(self) -> None:
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _fetched(self, what: str) -> State:
        path = self._path()
        self._ask(what, path=str(path))
        state = read_state(path)
        # What was read stays: it is mapped from the file, whatever becomes of its name.
        path.unlink()
        return state

    def _path(self) -> Path:
        return self._folder / f"state-{secrets.token_hex(8)}.safetensors"

    def _ask(self, what: str, **values: Any) -> Any:  # Any: JSON values.
        """What the first process answers, once all have."""
        if not self._end.alive:
            raise RunError("The processes of this shared training have ended; start it again.")
        line = json.dumps({"do": what, **values}).encode() + b"\n"
        try:
            for process in self._processes:
                _write(process, line)
            answers = _answers(self._processes, self._folder / LOG)
        except BaseException:
            # Some have answered and some have not: nothing more can be asked of them.
            self.close()
            raise
        return answers[0]


def _check_devices(devices: Sequence[str]) -> None:
    is_cpu, on_gpu = set(devices) == {"cpu"}, all(name.startswith("cuda:") for name in devices)
    if not devices or not (is_cpu or (on_gpu and len(set(devices)) == len(devices))):
        raise ConfigError(
            "Processes that share a training are all on the CPU or have a GPU each; got "
            f"{list(devices)}. Set training.processes to the number of GPUs, or less."
        )


def _start(rank: int, devices: Sequence[str], threads: int, log: Path) -> "subprocess.Popen[bytes]":
    device = devices[rank]
    paths = [path or str(Path.cwd()) for path in sys.path]
    environment = {
        **os.environ,
        **dict.fromkeys(_POOLS, str(threads)),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "RANK": str(rank),
        # Accelerate takes the GPU of this number.
        "LOCAL_RANK": device.partition(":")[2] or str(rank),
        "WORLD_SIZE": str(len(devices)),
        "LOCAL_WORLD_SIZE": str(len(devices)),
    }
    if device == "cpu":
        # They meet on this machine, which has an address of its own even without a network.
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with log.open("ab") as written:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", _PROCESS, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            env=environment,
            # Ctrl-C in the terminal is for this process alone.
            start_new_session=True,
        )


def _write(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    try:
        pipe = _pipe(process.stdin)
        pipe.write(line)
        pipe.flush()
    except BrokenPipeError:
        return  # It is dead, which shows when its answer is read.


def _answers(processes: Sequence["subprocess.Popen[bytes]"], log: Path) -> list[Any]:
    """A line of each; the first that is an error, or that does not come, is raised."""
    lines: dict[int, bytes] = dict.fromkeys(range(len(processes)), b"")
    found: dict[int, Any] = {}  # Any: JSON values.
    with selectors.DefaultSelector() as selector:
        for rank, process in enumerate(processes):
            selector.register(_pipe(process.stdout), selectors.EVENT_READ, rank)
        while len(found) < len(processes):
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                lines[key.data] += data
                if not data:
                    raise _lost(processes[key.data], log)
                if data.endswith(b"\n"):
                    found[key.data] = _answer(json.loads(lines[key.data]), log)
                    selector.unregister(key.fileobj)
    return [found[rank] for rank in range(len(processes))]


def _answer(said: Mapping[str, Any], log: Path) -> Any:  # Any: a JSON value.
    if "error" not in said:
        return said["answer"]
    name, message = said["error"]
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, UserError):
        raise kind(message)
    raise RunError(f"A process that shares a training failed ({name}: {message}); see {log}.")


def _lost(process: "subprocess.Popen[bytes]", log: Path) -> RunError:
    return RunError(
        f"A process that shares a training died (exit code {process.wait()}), as when memory runs "
        f"out; see {log}. Run it again to go on from its last state."
    )


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        # The end of its input ends a process, whatever it is doing.
        try:
            _pipe(process.stdin).close()
        except BrokenPipeError:
            continue
    for process in processes:
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the process was started without a pipe"
    return pipe
