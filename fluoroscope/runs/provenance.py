"""Where results come from: code revision, package versions, hardware."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

import fluoroscope
from fluoroscope.core.config import Settings

PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "scipy",
    "numba",
    "polars",
    "tokenizers",
    "datasets",
    "ray",
)


def provenance(seed: int | None) -> Settings:
    return {
        "fluoroscope": fluoroscope.__version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "code": code_revision(),
        "hardware": hardware(),
        "seed": seed,
    }


def package_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def code_revision() -> Settings | None:
    """Git commit of this package and whether it was changed since; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None or not (folder / ".git").exists():
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "fluoroscope")
    return {"revision": revision, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware() -> Settings:
    """The machine; GPUs only where torch is loaded already, which is wherever they are used."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpu_names(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def gpu_names() -> list[str]:
    torch: Any = sys.modules.get("torch")  # Any: a module.
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
