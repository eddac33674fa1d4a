"""Devices as a plan sees them: peak arithmetic, memory traffic, memory; and what others use.

Numbers of GPUs are the makers' dense (not sparse) peaks; `efficiency` is the share of the
arithmetic peak that large matrix products of a transformer reach in practice. The machine at
hand is measured instead, in half a second.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.runs.process import fixed_threads, resolve_devices
from fluoroscope.runs.provenance import cpu_name


@dataclass(frozen=True)
class Device:
    name: str

    flops_16bit: float
    """Peak operations a second in bfloat16 or float16, with float32 sums."""

    flops_32bit: float
    """Peak operations a second in float32."""

    bytes_per_s: float
    memory_bytes: float
    efficiency: float = 0.5

    used_by_others_bytes: float = 0.0
    """Memory that is taken now; 0 for a device that is not here."""

    count: int = 1

    is_measured: bool = False
    note: str = ""

    def flops(self, dtype: str) -> float:
        """Operations a second that work in `dtype` can count on."""
        peak = self.flops_32bit if dtype in ("float32", "float64") else self.flops_16bit
        return peak * self.efficiency


def _gpu(name: str, tflops_16: float, tflops_32: float, gb_per_s: float, gb: float) -> Device:
    return Device(name, tflops_16 * 1e12, tflops_32 * 1e12, gb_per_s * 1e9, gb * 2**30)


DEVICES = {
    device.name: device
    for device in (
        _gpu("A100-80GB", 312.0, 19.5, 2039.0, 80.0),
        _gpu("A100-40GB", 312.0, 19.5, 1555.0, 40.0),
        _gpu("H100-80GB", 989.0, 67.0, 3350.0, 80.0),
        _gpu("H200-141GB", 989.0, 67.0, 4800.0, 131.0),
        _gpu("B200-192GB", 2250.0, 80.0, 8000.0, 179.0),
        _gpu("RTX4090-24GB", 165.0, 82.6, 1008.0, 24.0),
        _gpu("RTX3090-24GB", 71.0, 35.6, 936.0, 24.0),
        _gpu("L40S-48GB", 362.0, 91.6, 864.0, 48.0),
        _gpu("L4-24GB", 121.0, 30.3, 300.0, 24.0),
        _gpu("V100-32GB", 112.0, 15.7, 900.0, 32.0),
        _gpu("T4-16GB", 65.0, 8.1, 320.0, 15.0),
    )
}


def parse_devices(text: str, threads: int = 1) -> Device:
    """`4xA100-80GB`, `A100-80GB`, `L4`, `cpu`, `cuda:0,cuda:1` or `auto` -> what it is made of."""
    if text in ("auto", "cpu") or text.startswith("cuda"):
        devices = resolve_devices(text)
        return replace(measure(devices[0], threads), count=len(devices))
    match = re.fullmatch(r"(?:(\d+)\s*[xX*]\s*)?(.+)", text.strip())
    count, name = (int(match[1] or 1), match[2]) if match else (1, text)
    found = [
        device for key, device in DEVICES.items() if _plain(name) in (_plain(key), _short(key))
    ]
    if not found or count < 1:
        raise ConfigError(
            f"Device {name!r} is not in the table.{nearest(name, DEVICES)} There are: "
            f"{', '.join(DEVICES)}; several as 4xA100-80GB; this machine as auto, cpu or cuda:0."
        )
    return replace(found[0], count=count)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _short(key: str) -> str:
    """`L4` for L4-24GB, but not `A100`, of which there are two."""
    stem = key.rpartition("-")[0]
    is_only_one = sum(other.startswith(f"{stem}-") for other in DEVICES) == 1
    return _plain(stem) if is_only_one else _plain(key)


def measure(device: str, threads: int = 1) -> Device:
    """What this machine's `device` does with matrix products and copies; half a second."""
    with fixed_threads(threads):
        size = 512 if device == "cpu" else 8192
        a = torch.randn(size, size, device=device)
        flops_32bit = 2 * size**3 * _per_second(lambda: a @ a, device)
        half = a.to(torch.bfloat16)
        flops_16bit = 2 * size**3 * _per_second(lambda: half @ half, device)
        # Far beyond any cache; read once and written once.
        source = torch.empty(2**24 if device == "cpu" else 2**28, device=device).fill_(1.0)
        target = torch.empty_like(source)
        copied = 2 * source.nbytes * _per_second(lambda: target.copy_(source), device)
    name, total, used = _memory(device)
    note = f"measured with {threads} thread{'s' * (threads > 1)}" if device == "cpu" else "measured"
    # A measured product is what is reached already; real shapes are a little worse.
    return Device(name, flops_16bit, flops_32bit, copied, total, 0.8, used, 1, True, note)


def _per_second(work: Callable[[], object], device: str) -> float:
    work()
    _wait(device)
    best, began = float("inf"), time.perf_counter()
    # The best of several: other work on the machine only ever makes it slower.
    while time.perf_counter() - began < 0.12:
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 1 / best


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _memory(device: str) -> tuple[str, float, float]:
    if device == "cpu":
        memory = psutil.virtual_memory()
        return cpu_name(), float(memory.total), float(memory.total - memory.available)
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    return torch.cuda.get_device_name(device), float(total), max(0.0, total - free - own)
