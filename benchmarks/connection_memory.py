"""Part `memory`: what a pass forward and backward through maps of pairs holds at its peak.

Of a process of its own each, above what it holds before the pass: weights, slots, and whatever
first use brings with it. Gradients of the weights, as large as these, are in every peak.

    python -m benchmarks.connection_memory WAY N D R BATCH        MiB, of this process
"""

import gc
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import get_args

import torch

from benchmarks.connection_operator import BASE, QUICK_BASE
from benchmarks.connection_parts import (
    EINSUM,
    FAST,
    Size,
    WayName,
    one_pass,
    pair_connection,
    row,
    way_of,
)
from benchmarks.plugin_parts import Part

N_PEAKS = 3
_RESET = Path("/proc/self/clear_refs")


def memory(_: int, is_quick: bool) -> Part:
    """Rounds are not asked for: a peak hardly differs from the next."""
    if not _RESET.exists():
        return Part(conditions={"memory": "left out: peaks are read from /proc, as of Linux"})
    size, n_runs = (QUICK_BASE, 1) if is_quick else (BASE, N_PEAKS)
    what, part = f"{size}: peak of a pass", Part()
    peaks = {name: statistics.median(_peaks(name, size, n_runs)) for name in (EINSUM, FAST)}
    for name, peak in peaks.items():
        note = f"above the weights; {size.weight_bytes / 2**20:,.0f} MiB of it are gradients"
        part.rows.append(row(what, name, cost=f"{peak:,.0f} MiB", note=note))
    said = f"{size}: no more memory than {EINSUM}, {peaks[FAST]:,.0f} of {peaks[EINSUM]:,.0f} MiB"
    part.goals[said] = peaks[FAST] <= peaks[EINSUM]
    part.conditions["memory"] = f"forward and backward; median of {n_runs} fresh processes each"
    return part


def peak_mib(name: WayName, size: Size) -> float:
    """Of one pass in this process, above what it holds now."""
    # What is loaded and made once, on first use, is no part of it.
    few = Size(2, 4, 2, batch=2)
    one_pass(way_of(name, pair_connection(few)), few.slots(), learns=True)
    way, slots = way_of(name, pair_connection(size)), size.slots()
    gc.collect()
    # Makes the peak what is held now.
    _RESET.write_text("5")
    before = _kib("VmRSS")
    one_pass(way, slots, learns=True)
    return (_kib("VmHWM") - before) / 1024


def _peaks(name: WayName, size: Size, n_runs: int) -> list[float]:
    numbers = (size.n_slots, size.d_model, size.rank, size.batch)
    module = "benchmarks.connection_memory"
    command = [sys.executable, "-m", module, name, *map(str, numbers)]

    def run() -> float:
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(found.splitlines()[-1])

    return [run() for _ in range(n_runs)]


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = next(name for name in get_args(WayName) if name == sys.argv[1])
    sys.stdout.write(json.dumps(peak_mib(asked, Size(*map(int, sys.argv[2:6])))) + "\n")
