"""The toy study as a command, and what it leaves when nobody disturbs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_runs import result_bytes, run_toy

TOY = Path(__file__).with_name("toy_cli.py")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nobody disturbed."""
    return result_bytes(run_toy(tmp_path_factory.mktemp("runs")).folder)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts `fluoro ARGUMENTS` with the toy study; its runs are in `tmp_path`."""

    def begin(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(TOY), *arguments],
            env={**os.environ, "FLUOROSCOPE_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin
