"""What the report says of answers: by arm, the main arm beside the others, and by depth."""

from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.intervals import Interval
from fluoroscope.plots.chart import Bars, Chart, Line, Mark, Reference
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.steps.comparing_arms import ALPHA, Draws, accuracy_interval
from fluoroscope.studies.connection.report_findings import Findings, SetFindings, scores_of_arm

Row = dict[str, Any]  # Any: values of a table.

_POINTS: dict[str, str] = dict.fromkeys(("difference", "difference_low", "difference_high"), ".4f")


def add_accuracy(report: Report, found: Findings) -> None:
    report.section("Accuracy by question set and arm")
    report.text(
        "Answers are written token by token and never told; what cannot be read is wrong, and "
        "`parse_rate` says how much could be. Means over the trainings of an arm, each with its "
        "best look at the validation side; the test side is answered once. The majority's answer "
        "and a bag of words saw the same training side and answer the same questions."
    )
    rows = [_accuracy(one, arm) for one in found.sets for arm in one.arms]
    report.figure("accuracy_by_arm", _bars(rows), "Test accuracy, with 95 % intervals.")
    report.table("accuracy", without_nan(pl.DataFrame(rows, infer_schema_length=None)))
    scores = [
        {"data_set": one.name, "arm": arm, **scores_of_arm(one, arm)}
        for one in found.sets
        for arm in one.answers["arm"].unique(maintain_order=True)
    ]
    frame = pl.DataFrame(scores, infer_schema_length=None)
    report.table("other_scores", frame, "Other scores of the same answers, means over seeds.")


def add_beside(report: Report, found: Findings) -> None:
    report.section("The first arm beside the others")
    report.text(
        "Paired by question and seed. An arm beats another where the interval of their difference "
        f"is above 0 and q, which is p with all comparisons of this report corrected together, is "
        f"below {ALPHA}."
    )
    rows = [
        {
            "data_set": one.name,
            "beside": other.arm,
            **_ends("difference", other.difference.difference),
            "p": other.difference.p,
            "q": other.q,
            "outcome": other.outcome,
            "n_gained": other.difference.n_gained,
            "n_lost": other.difference.n_lost,
        }
        for one in found.sets
        for other in one.beside
    ]
    if not rows:
        return
    panels: dict[str, list[Mark]] = {}
    for one in found.sets:
        ends = [other.difference.difference for other in one.beside]
        names = [other.arm for other in one.beside]
        values, lows, highs = ([interval[i] for interval in ends] for i in range(3))
        panels[one.name] = [Bars("difference", names, values, lows, highs)]
    report.figure(
        "differences_by_arm",
        Chart.grid(panels, y="first arm less the other", columns=2),
        "Accuracy of the first arm less that of each other, on the same questions and seeds.",
    )
    frame = without_nan(pl.DataFrame(rows, infer_schema_length=None))
    caption = (
        "`n_gained`: questions that the first arm gets right with more seeds; `n_lost`: fewer."
    )
    report.table("differences", frame, caption, {**_POINTS, "p": ".2g", "q": ".2g"})


def add_depth(report: Report, found: Findings) -> None:
    """Where questions say how many steps their answers take."""
    sets = [one for one in found.sets if len(one.all_depths) > 1 and one.trained_depths]
    if not sets:
        return
    report.section("Accuracy by depth")
    panels, rows, ranges, references = {}, [], [], []
    for one in sets:
        own = [row for arm in one.arms for row in _by_depth(found, one, arm)]
        rows += own
        panels[one.name] = [_curve(arm, own) for arm in one.arms]
        trained = one.trained_depths
        references.append(max(trained))
        ranges += [row for arm in one.arms for row in _by_range(found, one, arm, max(trained))]
        report.text(
            f"**{one.name}** was trained on depths {min(trained)} to {max(trained)}; what is "
            "deeper was never seen."
        )
    line = (
        [Reference(max(references) + 0.5, "not trained", "x")] if len(set(references)) == 1 else []
    )
    report.figure(
        "accuracy_by_depth",
        Chart.grid(panels, x="depth", y="test accuracy", references=line, columns=2),
        "Test accuracy by the hops that the answer takes, with 95 % intervals.",
    )
    frame = without_nan(pl.DataFrame(ranges, infer_schema_length=None))
    report.table("depth_ranges", frame, "All of a trained depth together, and all deeper.")
    frame = without_nan(pl.DataFrame(rows, infer_schema_length=None))
    report.table("depths", frame, "The same by depth; fewer than ten questions have no interval.")


def _accuracy(one: SetFindings, arm: str) -> Row:
    seeds = one.arms[arm].mean(axis=1)
    is_trained = arm in one.answers["arm"].unique()
    return {
        "data_set": one.name,
        "arm": arm,
        **_ends("accuracy", one.accuracy(arm)),
        "sd_of_seeds": float(seeds.std(ddof=1)) if len(seeds) > 1 and is_trained else None,
        "n_seeds": len(seeds) if is_trained else None,
        "n": one.arms[arm].shape[1],
        "n_groups": one.draws.n_groups,
    }


def _by_depth(found: Findings, one: SetFindings, arm: str) -> list[Row]:
    return [
        {
            "data_set": one.name,
            "arm": arm,
            "depth": depth,
            **_among(found, one, arm, [own == depth for own in one.depths]),
        }
        for depth in one.all_depths
    ]


def _by_range(found: Findings, one: SetFindings, arm: str, trained: int) -> list[Row]:
    ranges = {
        "trained": [own is not None and own <= trained for own in one.depths],
        "deeper": [own is not None and own > trained for own in one.depths],
        "not said": [own is None for own in one.depths],
    }
    return [
        {"data_set": one.name, "arm": arm, "depths": name, **_among(found, one, arm, which)}
        for name, which in ranges.items()
        if any(which)
    ]


def _among(found: Findings, one: SetFindings, arm: str, which: list[bool]) -> Row:
    """Accuracy in these questions of the test side."""
    groups = [question.group_id for question in one.asked.side("test")]
    own = [group for group, kept in zip(groups, which, strict=True) if kept]
    draws = Draws(own, len(one.arms[arm]), found.config.seed)
    interval = accuracy_interval(one.arms[arm][:, np.array(which)], draws)
    return {**_ends("accuracy", interval), "n": sum(which)}


def _curve(arm: str, rows: list[Row]) -> Line:
    own = [row for row in rows if row["arm"] == arm]
    columns = ("depth", "accuracy", "accuracy_low", "accuracy_high")
    x, y, low, high = ([row[name] for row in own] for name in columns)
    return Line(arm, x, y, low, high, markers=True)


def _bars(rows: list[Row]) -> Chart:
    panels: dict[str, list[Mark]] = {}
    for name in dict.fromkeys(row["data_set"] for row in rows):
        own = [row for row in rows if row["data_set"] == name]
        parts = ([row[key] for row in own] for key in ("accuracy", "accuracy_low", "accuracy_high"))
        values, lows, highs = parts
        panels[name] = [Bars("accuracy", [row["arm"] for row in own], values, lows, highs)]
    return Chart.grid(panels, y="test accuracy", columns=2)


def _ends(name: str, interval: Interval) -> Row:
    value, low, high = interval
    return {name: value, f"{name}_low": low, f"{name}_high": high}
