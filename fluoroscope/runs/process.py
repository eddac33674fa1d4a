"""What is the same in every process that works on a run: threads, determinism, peak memory."""

import importlib
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from fluoroscope.core.errors import ConfigError
from fluoroscope.runs.gpus import least_used_first
from fluoroscope.runs.how import How


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Torch, BLAS and numba use this many threads: how sums are split decides their last bits."""
    before = torch.get_num_threads()
    # Imported, as it would otherwise start with all cores when a step first uses it.
    numba = importlib.import_module("numba")
    numba_before = numba.get_num_threads()
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
        numba.set_num_threads(numba_before)


def prepare_device(device: str) -> None:
    """On a GPU the same bytes need deterministic kernels; the CPU's are so with fixed threads."""
    if not device.startswith("cuda"):
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills every fresh tensor, which costs time and changes nothing here.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - untyped
    torch.cuda.set_device(device)


def resolve_devices(devices: str) -> list[str]:
    """`auto`, `cpu` or `cuda:0,cuda:1` -> the devices, checked to be here."""
    here = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if devices == "auto":
        return here or ["cpu"]
    asked = [name.strip() for name in devices.split(",") if name.strip()]
    asked = ["cuda:0" if name == "cuda" else name for name in asked]
    missing = [name for name in asked if name != "cpu" and name not in here]
    if missing or not asked:
        raise ConfigError(
            f"devices={devices!r}: {', '.join(missing) or 'nothing'} is not here. "
            f"This machine has: {', '.join(['cpu', *here])}."
        )
    return asked


def usable_cores() -> int:
    """That this process may use, of all there are."""
    return len(os.sched_getaffinity(0))


def worker_devices(how: How, threads: int) -> list[str]:
    """The device of each worker on this machine: all devices in turn, for `how.workers`.

    Where the choice is ours (`auto`) GPUs that others use least come first.
    """
    devices = resolve_devices(how.devices)
    if how.devices == "auto":
        devices = least_used_first(devices)
    if how.executor == "local":
        return devices[:1]
    default = max(1, usable_cores() // threads) if devices == ["cpu"] else len(devices)
    return [devices[i % len(devices)] for i in range(how.workers or default)]


class PeakMemory:
    """Peak memory since it was made, of this process and of its GPU."""

    def __init__(self) -> None:
        self._is_reset = _reset_peak()
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()

    def host_bytes(self) -> int:
        """Since the process began where the kernel cannot forget an older peak."""
        peak = _status_kib("VmHWM") if self._is_reset else None
        if peak is None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * 1024

    def gpu_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status_kib(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) if found else None


def python_environment(threads: int) -> dict[str, str]:
    """Environment for a worker process: it imports what this process can, with fixed threads."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **dict.fromkeys(pools, str(threads)),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    }
