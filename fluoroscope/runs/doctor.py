"""The check before a long run: devices, memory, disk, versions, network, optional parts."""

import importlib.util
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import polars
import psutil

from fluoroscope.core.storage import free_bytes
from fluoroscope.runs.gpus import gpu_use
from fluoroscope.runs.provenance import code_revision, cpu_name, package_versions
from fluoroscope.runs.record import runs_root
from fluoroscope.runs.terminal import size

LOW_DISK_BYTES = 10e9
LOW_MEMORY_BYTES = 2e9
_SCHEMA = {"what": polars.String, "state": polars.String, "found": polars.String}

Row = Mapping[str, str]


def examine() -> polars.DataFrame:
    """A row for each thing a run stands on: `ok`, `warning` or `problem`, and what was found."""
    rows = [_cpu(), _memory(), _gpus(), _runs_folder(), _data_folder(), *_versions()]
    rows += [_offline(), _extra("ray", "--executor ray"), _wandb(), _code()]
    return polars.DataFrame(rows, schema=_SCHEMA)


def _row(what: str, state: str, found: str) -> Row:
    return {"what": what, "state": state, "found": found}


def _cpu() -> Row:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    busy = load > 0.5 * cores
    text = f"{cpu_name()}, {cores} cores, load {load:.1f}"
    return _row("CPU", "warning" if busy else "ok", text + (": others work here" * busy))


def _memory() -> Row:
    memory = psutil.virtual_memory()
    state = "ok" if memory.available > LOW_MEMORY_BYTES else "warning"
    return _row("memory", state, f"{size(memory.available)} of {size(memory.total)} free")


def _gpus() -> Row:
    import torch

    by_driver = gpu_use()
    by_torch = torch.cuda.device_count()
    if by_driver and not by_torch:
        text = f"{'; '.join(by_driver)}; but this torch ({torch.__version__}) cannot use them"
        return _row("GPUs", "problem", text)
    return _row("GPUs", "ok", "; ".join(by_driver) or "none; work is done on the CPU")


def _runs_folder() -> Row:
    root = runs_root().absolute()
    place = next(path for path in (root, *root.parents) if path.exists())
    free = free_bytes(place)
    if not os.access(place, os.W_OK):
        return _row("runs", "problem", f"{root} cannot be written; set FLUOROSCOPE_RUNS")
    return _row("runs", "ok" if free > LOW_DISK_BYTES else "warning", f"{root}, {size(free)} free")


def _data_folder() -> Row:
    folder = os.environ.get("FLUOROSCOPE_DATA")
    if folder is None:
        return _row("data", "ok", "FLUOROSCOPE_DATA is not set; data files are found by path")
    is_there = Path(folder).is_dir()
    return _row("data", "ok" if is_there else "problem", folder if is_there else f"no {folder}")


def _versions() -> list[Row]:
    versions = package_versions()
    wanted = {"torch": (2, 11), "transformers": (5,)}
    rows: list[Row] = []
    for name, least in wanted.items():
        parts = versions[name].split("+")[0].split(".")
        found = tuple(int(part) for part in parts[:2] if part.isdigit())
        state = "ok" if found >= least else "problem"
        rows.append(_row(name, state, f"{versions[name]} (at least {'.'.join(map(str, least))})"))
    return rows


def _offline() -> Row:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return _row("network", "ok", "HF_HUB_OFFLINE is set: only local models and data")
    is_online = _reaches("huggingface.co")
    text = "the hub answers" if is_online else "offline: only local or cached models and data"
    return _row("network", "ok" if is_online else "warning", text)


def _reaches(host: str, wait_s: float = 2.0) -> bool:
    reached = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, 443), timeout=wait_s).close()
        except OSError:
            return
        reached.set()

    # In a thread, as looking up a name has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(wait_s)
    return reached.is_set()


def _extra(name: str, what_for: str) -> Row:
    is_there = importlib.util.find_spec(name) is not None
    version = package_versions().get(name, "installed")
    missing = f"not installed: pip install 'fluoroscope[{name}]' for {what_for}"
    return _row(name, "ok", version if is_there else missing)


def _wandb() -> Row:
    if importlib.util.find_spec("wandb") is None:
        return _extra("wandb", "logging to Weights & Biases")
    has_key = bool(os.environ.get("WANDB_API_KEY")) or (Path.home() / ".netrc").exists()
    text = "installed, with a key" if has_key else "installed, not logged in (`wandb login`)"
    return _row("wandb", "ok", text)


def _code() -> Row:
    code = code_revision()
    if code is None:
        return _row("code", "ok", "installed package")
    dirty = code["dirty"]
    text = f"revision {code['revision'][:10]}" + (
        ", changed since: commit before a long run" * dirty
    )
    return _row("code", "warning" if dirty else "ok", text)
