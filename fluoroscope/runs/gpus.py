"""GPUs by the driver's own tool, so that asking needs neither torch nor a CUDA context."""

import os
import subprocess
from collections.abc import Sequence

_FIELDS = "index,name,utilization.gpu,memory.used,memory.total"
_MEMORY = "index,uuid,memory.used"


def gpu_use() -> list[str]:
    """A line for every GPU: name, use, memory; none where there is no NVIDIA driver."""
    return [
        f"GPU {row[0]} {row[1]}: {row[2]} % busy, {row[3]} of {row[4]} MiB used"
        for row in _query(_FIELDS)
    ]


def least_used_first(devices: Sequence[str]) -> list[str]:
    """`cuda:N` devices by how much of their memory is taken now, the least first.

    N counts the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order, as torch does. The order
    stays as it is where there is no driver to ask, or where that variable names what the driver
    does not list, such as parts of a GPU.
    """
    if len(devices) < 2:
        return list(devices)
    taken = _memory_of_visible()
    numbers = [int(device.removeprefix("cuda:")) for device in devices]
    if taken is None or max(numbers) >= len(taken):
        return list(devices)
    order = sorted(range(len(devices)), key=lambda i: taken[numbers[i]])
    return [devices[i] for i in order]


def _memory_of_visible() -> list[float] | None:
    """MiB in use on each GPU that a process of ours sees, in its numbering; None if unknown."""
    rows = [row for row in _query(_MEMORY) if row[2].isdigit()]
    by_index = {row[0]: float(row[2]) for row in rows}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(by_index.values()) or None
    found: list[float] = []
    for entry in (part.strip() for part in visible.split(",")):
        # A UUID may be shortened to what tells it from the others.
        by_uuid = [by_index[row[0]] for row in rows if entry and row[1].startswith(entry)]
        if entry not in by_index and len(by_uuid) != 1:
            return None
        found.append(by_index[entry] if entry in by_index else by_uuid[0])
    return found


def _query(fields: str) -> list[list[str]]:
    """A row a GPU; none where the tool is not there or fails."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == fields.count(",") + 1]
