"""GPUs by the driver's own tool, so that asking needs neither torch nor a CUDA context."""

import subprocess

_FIELDS = "index,name,utilization.gpu,memory.used,memory.total"


def gpu_use() -> list[str]:
    """A line for every GPU: name, use, memory; none where there is no NVIDIA driver."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [
        f"GPU {row[0]} {row[1]}: {row[2]} % busy, {row[3]} of {row[4]} MiB used"
        for row in rows
        if len(row) == 5
    ]
