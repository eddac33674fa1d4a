"""Runs of the toy study in this process, and the bytes that they leave."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from toy_study import ToySpec, ToyStudy

from fluoroscope.core.storage import sha256_file
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run

T = TypeVar("T")


def run_toy(root: Path, name: str = "toy", how: How | None = None, **settings: object) -> Run:
    return execute(ToyStudy(), ToySpec.model_validate(settings), name, how, root=root)


def result_bytes(folder: Path) -> dict[str, str]:
    """Hashes of all that a run made: steps, their manifests, and tables."""
    places = [folder / name for name in ("numbers", "walks", "tables", "done.json")]
    files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in files}


def wait_for(condition: Callable[[], T], seconds: float = 60.0) -> T:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come about")
