"""What a study will cost before it starts, and whether it fits.

Time is the roofline of each step (the slower of its arithmetic and its memory traffic) and a
fixed overhead, divided among as many devices as its shards allow. It is an estimate; memory and
disk are upper bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars
import psutil
import torch

from fluoroscope.core.errors import DoesNotFitError
from fluoroscope.core.storage import free_bytes
from fluoroscope.runs.events import EventLog, read_events
from fluoroscope.runs.hardware import Device, measure
from fluoroscope.runs.how import How
from fluoroscope.runs.process import worker_devices
from fluoroscope.runs.run import DONE
from fluoroscope.runs.step import Cost, MapStep
from fluoroscope.runs.terminal import size

TIGHT = 0.85
"""Share of the free memory above which a step that fits is called tight."""

PROCESS_BYTES = 0.95e9
"""A Python process with torch and transformers loaded, or a CUDA context: beside every shard."""

Status = Literal["safe", "tight", "does not fit"]

_SCHEMA = {
    "step": polars.String,
    "device": polars.String,
    "devices_used": polars.Int64,
    "time_s": polars.Float64,
    "memory_bytes": polars.Float64,
    "used_by_others_bytes": polars.Float64,
    "headroom_bytes": polars.Float64,
    "status": polars.String,
    "disk_bytes": polars.Float64,
    "flops": polars.Float64,
    "note": polars.String,
}


def plan(steps: Sequence[MapStep], devices: Sequence[Device], workers: int = 1) -> polars.DataFrame:
    """A row for every step and device, and a total for every device; see `fluoro plan`.

    `workers` share a CPU; a GPU has one.
    """
    costs = {step.name: step.cost() for step in steps}
    rows: list[Mapping[str, object]] = []
    for device in devices:
        mine = [_row(name, cost, device, workers) for name, cost in costs.items()]
        rows += [*mine, _total(mine, device)]
    return polars.DataFrame(rows, schema=_SCHEMA)


def shared_with(device: Device, others: Sequence[Sequence[MapStep]], workers: int = 1) -> Device:
    """The device with what other runs on it take of its memory: of each its largest step."""
    taken = sum(max(_memory(step.cost(), device, workers) for step in steps) for steps in others)
    return replace(device, used_by_others_bytes=device.used_by_others_bytes + float(taken))


def step_seconds(cost: Cost, device: Device, workers: int = 1) -> float:
    """The roofline time of a step's whole cost, and its fixed overhead."""
    arithmetic = cost.flops / device.flops("float32") + cost.half_flops / device.flops("bfloat16")
    work = max(arithmetic, cost.bytes_moved / device.bytes_per_s) + cost.overhead_s
    return work / _at_once(cost, device, workers)


def _at_once(cost: Cost, device: Device, workers: int) -> int:
    return max(1, min(cost.parallel, device.count * workers))


def _row(name: str, cost: Cost, device: Device, workers: int) -> dict[str, object]:
    memory = _memory(cost, device, workers)
    free = device.memory_bytes - device.used_by_others_bytes
    return {
        "step": name,
        "device": _label(device),
        "devices_used": min(device.count, _at_once(cost, device, workers)),
        "time_s": step_seconds(cost, device, workers),
        "memory_bytes": memory,
        "used_by_others_bytes": device.used_by_others_bytes,
        "headroom_bytes": free - memory,
        "status": status(memory, free),
        "disk_bytes": cost.disk_bytes,
        "flops": cost.flops + cost.half_flops,
        "note": cost.note,
    }


def _memory(cost: Cost, device: Device, workers: int) -> float:
    """Of all shards that one device works on at once."""
    per_device = -(-_at_once(cost, device, workers) // device.count)
    return (cost.memory_bytes + PROCESS_BYTES) * per_device


def _total(rows: Sequence[Mapping[str, object]], device: Device) -> dict[str, object]:
    frame = polars.DataFrame(rows, schema=_SCHEMA)
    memory = frame["memory_bytes"].max() or 0.0
    free = device.memory_bytes - device.used_by_others_bytes
    return {
        "step": "total",
        "device": _label(device),
        "devices_used": frame["devices_used"].max(),
        "time_s": frame["time_s"].sum(),
        "memory_bytes": memory,
        "used_by_others_bytes": device.used_by_others_bytes,
        "headroom_bytes": free - float(str(memory)),
        "status": status(float(str(memory)), free),
        "disk_bytes": frame["disk_bytes"].sum(),
        "flops": frame["flops"].sum(),
        "note": device.note,
    }


def _label(device: Device) -> str:
    return f"{device.count}x{device.name}" if device.count > 1 else device.name


def status(needed: float, free: float) -> Status:
    """`tight` fits, but leaves little for what the bound does not know of."""
    if needed > free:
        return "does not fit"
    return "tight" if needed > TIGHT * free else "safe"


def prepare_start(
    steps: Sequence[MapStep], folder: Path, how: How, threads: int, log: EventLog
) -> None:
    """Refuses what cannot fit, and at the first start notes what was estimated."""
    devices = worker_devices(how, threads)
    is_elsewhere = how.ray_address is not None
    if how.check_fit:
        n_workers = 0 if is_elsewhere else len(devices)
        check_fits(steps, folder, n_workers, free_gpu_bytes(devices), len(set(devices)))
    is_known = bool(read_events(folder, "planned"))
    costs = {step.name: step.cost() for step in steps}
    if is_known or is_elsewhere or not any(c.flops or c.bytes_moved for c in costs.values()):
        return
    n_devices = len(set(devices))
    device = replace(measure(devices[0], threads), count=n_devices)
    for name, cost in costs.items():
        seconds = step_seconds(cost, device, len(devices) // n_devices)
        memory = cost.memory_bytes + PROCESS_BYTES
        about = {"seconds": seconds, "memory_bytes": memory, "disk_bytes": cost.disk_bytes}
        log.append("planned", step=name, **about)


def free_gpu_bytes(devices: Sequence[str]) -> float | None:
    """Of the GPU among them that has least; None where none is one."""
    gpus = [device for device in devices if device.startswith("cuda")]
    return min((torch.cuda.mem_get_info(gpu)[0] for gpu in gpus), default=None)


def check_fits(
    steps: Sequence[MapStep],
    folder: Path,
    workers: int = 1,
    gpu_bytes: float | None = None,
    n_gpus: int | None = None,
) -> None:
    """Refuses before it starts what disk or memory cannot hold; done steps count for nothing.

    `gpu_bytes` is the free memory of a worker's GPU, which is its own, or one of `n_gpus` that
    workers share; without one the work is in main memory, which all `workers` share (none of them,
    if they are on other machines).
    """
    to_do = [step for step in steps if not (folder / step.name / DONE).exists()]
    costs = {step.name: step.cost() for step in to_do}
    disk = {name: max(0.0, c.disk_bytes - _on_disk(folder / name)) for name, c in costs.items()}
    free = free_bytes(folder)
    if sum(disk.values()) > free:
        notes = {name: f", {cost.note}" if cost.note else "" for name, cost in costs.items()}
        parts = "; ".join(f"{name} {size(n)}{notes[name]}" for name, n in disk.items() if n)
        raise DoesNotFitError(
            f"The run needs up to {size(sum(disk.values()))} of disk ({parts}), and {folder} has "
            f"{size(free)} free. Free some, set FLUOROSCOPE_RUNS to a bigger disk, or ask for "
            "less; --no-check-fit starts anyway."
        )
    memory = gpu_bytes if gpu_bytes is not None else psutil.virtual_memory().available
    in_one_memory = workers if gpu_bytes is None else -(-workers // max(1, n_gpus or workers))
    for name, cost in costs.items():
        shards = min(in_one_memory, cost.parallel)
        needed = cost.memory_bytes * shards
        if needed > memory:
            raise DoesNotFitError(
                f"Step {name} needs up to {size(needed)} of memory ({shards} shards at once"
                f"{f', {cost.note}' if cost.note else ''}), and {size(memory)} is free. Use fewer "
                "workers or smaller sizes; --no-check-fit starts anyway."
            )


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
