"""What the report says of slot networks inside: steps, graph, slots, and their way over steps."""

import numpy as np
import polars as pl

from fluoroscope.core.tensors import read_tensors
from fluoroscope.plots.chart import Chart, Heatmap, Line, Mark, Panel, Scatter
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.report_findings import Findings, SetFindings
from fluoroscope.studies.connection.steps.train import TRAIN
from fluoroscope.studies.connection.steps.training_loop import FACTS, training_key

_STEPS = ("avg_reasoning_steps", "early_termination_rate", "reasoning_adaptivity")
_GRAPH = (
    *("connection_sparsity", "sparsity_with_diagonal", "active_ratio", "hoyer"),
    *("share_that_holds", "entropy", "n_positive", "n_negative"),
    *("effective_rank", "orthogonality_quality"),
)
_SLOTS = ("slot_specialization", "slot_usage", "slot_label_information")
_MOST_TEXTS = 3


def add_networks(report: Report, run: Run, found: Findings) -> None:
    slots = found.trainings.drop_nulls("avg_reasoning_steps") if _has_slots(found) else None
    if slots is None or slots.is_empty():
        return
    report.section("Inside the slot networks")
    report.text(
        "Means over seeds, on the test side. `early_termination_rate` is the share of texts that "
        "stopped by themselves before the largest number of steps, and of none that were told how "
        "many to do; sparsity is of pairs of different slots "
        "(`sparsity_with_diagonal` is the plan's, which counts a slot with itself); "
        "`slot_specialization` is 1 where each text goes into one slot, `slot_usage` 1 where all "
        "slots get as much: the two are read together. `effective_rank` is of the map of a pair, "
        "in the mean (participation ratio of singular values); `orthogonality_quality` is 1 where "
        "the vectors of pairs are at right angles."
    )
    numbers = [
        name
        for name in (*_STEPS, *_GRAPH, *_SLOTS)
        if name in slots.columns and slots[name].count()
    ]
    means = slots.group_by("dataset", "arm", maintain_order=True).agg(
        pl.col(name).cast(pl.Float64).mean() for name in numbers
    )
    report.table("networks", means.rename({"dataset": "data_set"}), "What slot networks are like.")
    for one in found.sets:
        if found.config.training.thinking.steps == "halting":
            _add_steps(report, one)
        _add_graphs(report, run, found, one)


def _has_slots(found: Findings) -> bool:
    return "avg_reasoning_steps" in found.trainings.columns


def _add_steps(report: Report, one: SetFindings) -> None:
    """Steps of thought against difficulty, where both differ and nobody was told how many."""
    rows = one.answers.filter(pl.col("n_steps") > 0)
    if len(one.all_depths) < 2 or rows["n_steps"].n_unique() < 2:
        return
    means = rows.group_by("arm", "depth").agg(pl.col("n_steps").mean()).sort("arm", "depth")
    lines: list[Mark] = [
        Line(str(arm), own["depth"], own["n_steps"], markers=True)
        for (arm,), own in means.group_by("arm", maintain_order=True)
    ]
    report.figure(
        f"steps_by_depth.{_file(one.name)}",
        Chart.single(*lines, x="depth", y="steps of thought"),
        f"{one.name}: steps until a text stops, by the hops that its answer takes.",
    )


def _add_graphs(report: Report, run: Run, found: Findings, one: SetFindings) -> None:
    """Of the first slot network that was asked for, with its first seed."""
    arms = found.trainings.filter(pl.col("dataset") == one.name).drop_nulls("avg_reasoning_steps")
    if arms.is_empty():
        return
    arm = str(arms["arm"][0])
    key = training_key(one.name, arm, found.config.seed)
    tensors = read_tensors(run.step_folder(TRAIN) / "shards" / key / FACTS)
    signed = tensors.get("graph")
    values = (tensors["strengths"] if signed is None else signed).numpy()
    names = [str(i) for i in range(len(values))]
    ramp = "sequential" if signed is None else "diverging"
    label = "strength" if signed is None else "connection"
    report.figure(
        f"graph.{_file(one.name)}",
        Chart.single(
            Heatmap(values, names, names, label, ramp, show_values=False),
            x="target slot",
            y="source slot",
        ),
        f"{one.name}, {arm}, seed {found.config.seed}: how strongly the slot of a row is heard by "
        "that of a column.",
    )
    report.figure(
        f"trajectories.{_file(one.name)}",
        _trajectories(tensors["trajectories"].numpy()),
        f"{one.name}, {arm}: the states of all slots over the steps, of {_MOST_TEXTS} questions, "
        "in the plane in which they differ most (principal components of all that is drawn).",
    )


def _trajectories(states: np.ndarray) -> Chart:
    """A panel a question; a line a slot, which ends in a point. Axes: question, step, slot, d."""
    shown = states[:_MOST_TEXTS].astype(np.float64)
    flat = shown.reshape(-1, shown.shape[-1])
    centred = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    plane = (centred @ directions[:2].T).reshape(*shown.shape[:-1], -1)
    panels = []
    for number, own in enumerate(plane, start=1):
        marks: list[Mark] = [
            Line("way", own[:, slot, 0], own[:, slot, 1]) for slot in range(own.shape[1])
        ]
        labels = [f"slot {slot}" for slot in range(own.shape[1])]
        marks.append(Scatter("end", own[-1, :, 0], own[-1, :, 1], labels))
        panels.append(Panel(marks, f"question {number}"))
    return Chart(panels)


def _file(name: str) -> str:
    """A set's name in a figure's."""
    return "".join(sign if sign.isalnum() or sign in "_-" else "-" for sign in name)
