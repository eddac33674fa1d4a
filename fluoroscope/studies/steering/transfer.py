"""Several steering runs side by side: what is learnt on one task, judged on the others."""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.runs.compare import compare_runs
from fluoroscope.runs.report import Report


def compare_steering(runs: Sequence[Path], report: Report) -> None:
    compare_runs(runs, report)
