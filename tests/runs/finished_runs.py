"""Runs of the toy study with a report of their own, as an export and a comparison find them."""

from pathlib import Path

import numpy as np
import polars as pl
from toy_runs import run_toy

from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Chart, Line
from fluoroscope.runs.engine import REPORT_FILES
from fluoroscope.runs.manifest import write_report_manifest
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import DONE

METHODS = pl.DataFrame(
    {
        "method": ["style & length", "baseline + tracking", "none_told"],
        "auroc": [0.5712, 0.8213, 0.6],
        "auroc_low": [0.5, 0.7551, None],
        "auroc_high": [0.64, 0.8899, None],
        "change": [0.0, -0.0213, 0.1],
        "low": [-0.1, -0.04, 0.05],
        "high": [0.1, 0.01, 0.2],
        "p": [1.0, 0.0123, 0.02],
        "n_groups": [1200, 1200, 7],
        "brier": [0.25, 0.15, 0.2],
    }
)


def finished_run(root: Path, name: str = "one", shift: float = 0.0, **settings: object) -> Path:
    """A run of seconds whose report has tables, a figure and facts."""
    run = run_toy(root, name, **settings)
    report = Report(
        "Does it 100 % work?", facts={"games": 1200, "bankrupt": "63.7%", "model": "toy_1"}
    )
    moved = METHODS.with_columns(pl.col("auroc", "auroc_low", "auroc_high") + shift)
    report.table("methods", moved, "Of {all} methods_1 & more.")
    report.table("words", pl.DataFrame({"word": ["\u2581the", "\u0434\u043e\u043c", "caf\u00e9"]}))
    line = Line("loss", np.arange(5.0), np.arange(5.0) ** 2)
    report.figure("loss", Chart.single(line, x="step", y="loss"), "Loss at 50 % & more.")
    report.write(run.folder)
    inputs = read_json(run.folder / DONE)["inputs"]
    write_report_manifest(run.folder, inputs, REPORT_FILES)
    return run.folder
