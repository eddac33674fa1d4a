"""What the report says of how arms were made and trained: sizes, matches, curves."""

from typing import Any

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Chart, Line, Mark
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.runs.terminal import size
from fluoroscope.runs.usage import ShardPeak, shard_peaks
from fluoroscope.studies.connection.report_findings import Findings
from fluoroscope.studies.connection.steps.train import TRAIN
from fluoroscope.studies.connection.steps.training_loop import STATE, training_key

Row = dict[str, Any]  # Any: values of a table.


def add_sizes(report: Report, run: Run, found: Findings) -> None:
    report.section("Sizes")
    rows = []
    for one in found.sets:
        for arm in one.answers["arm"].unique(maintain_order=True):
            key = training_key(one.name, arm, found.config.seed)
            state = read_json(run.step_folder(TRAIN) / "shards" / key / STATE)
            counts, match = state["parameters"], state["matched"]
            rows.append(
                {
                    "data_set": one.name,
                    "arm": arm,
                    "parameters": counts["total"],
                    "without_vocabulary": counts["total"] - counts["vocabulary"],
                    "connections": counts["connections"],
                    "matched_in": None if match is None else match["unit"],
                    "gap": None if match is None else match["reached"] / match["target"] - 1,
                }
            )
    report.table(
        "sizes",
        pl.DataFrame(rows, infer_schema_length=None),
        "Parameters. `gap`: how far what is matched is from the slot network, as a share of it.",
        {"gap": ".4f"},
    )


def add_trainings(report: Report, found: Findings) -> None:
    report.section("Trainings")
    panels: dict[str, list[Mark]] = {}
    for one in found.sets:
        own = found.curves.filter(pl.col("dataset") == one.name)
        means = own.group_by("arm", "step", maintain_order=True).agg(
            pl.col("validation_accuracy").mean(),
            pl.col("validation_accuracy").min().alias("low"),
            pl.col("validation_accuracy").max().alias("high"),
        )
        panels[one.name] = [
            Line(arm, rows["step"], rows["validation_accuracy"], rows["low"], rows["high"])
            for (arm,), rows in means.sort("step").group_by("arm", maintain_order=True)
        ]
    report.figure(
        "curves",
        Chart.grid(panels, x="steps of the optimiser", y="validation accuracy", columns=2),
        "Accuracy on the validation side, mean over seeds; the band is from the lowest to the "
        "highest of them.",
    )
    columns = ["dataset", "arm", "seed", "best_step", "n_steps", "parts"]
    report.table(
        "trainings",
        found.trainings.select(columns).rename({"dataset": "data_set"}),
        "`best_step`: of the look that was kept; `parts`: that a step's texts were read in.",
    )


def add_memory(report: Report, run: Run, found: Findings, step: str = TRAIN) -> None:
    """In words: what was measured differs from run to run, and tables do not."""
    peaks, most = shard_peaks(run.folder, step), dict[str, ShardPeak]()
    for dataset, arm, seed in found.trainings.select("dataset", "arm", "seed").iter_rows():
        peak = peaks.get(training_key(dataset, arm, seed))
        if peak is not None and (arm not in most or peak > most[arm]):
            most[arm] = peak
    if most:
        said = ", ".join(f"{arm} {size(one.bytes)} ({one.device})" for arm, one in most.items())
        report.text(
            f"Peak memory of a training, the largest of each arm's: {said}. On a GPU that is what "
            "its tensors took, on a CPU the whole process; `peak_gpu_bytes` and `peak_rss_bytes` "
            "of the events `shard finished` in events.jsonl are those of every training."
        )
