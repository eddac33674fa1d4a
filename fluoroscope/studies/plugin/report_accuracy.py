"""What the report says of accuracies: by data set and arm, paired differences, controls, curves."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.intervals import Interval
from fluoroscope.plots.chart import Bars, Chart, Mark
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.steps.comparing_arms import Draws, Judged
from fluoroscope.studies.plugin.config import Arm
from fluoroscope.studies.plugin.report_findings import (
    Findings,
    SetFindings,
    Side,
    is_control,
)
from fluoroscope.studies.plugin.report_verdict import rule_in_words

TAKEN: Mapping[str, tuple[str, str]] = {
    "base": ("both maps and the layer", "the encoder, its pooled vector and the same head"),
    "random_layer": (
        "all that the layer learnt",
        "random entries of the same size, matrix by matrix, and both maps",
    ),
    "permuted_layer": (
        "which entry of each matrix stands where",
        "the layer's own entries, their size and spread, and both maps",
    ),
    "linear": ("the layer", "both maps, one after the other, with nothing between them"),
    "mlp": ("the layer", "both maps with a GELU between them: an adapter of the same trained size"),
}
"""Of a control: what it takes away, and what is left."""

_POINTS: dict[str, str] = dict.fromkeys(("difference", "difference_low", "difference_high"), ".4f")

Row = dict[str, Any]  # Any: values of a table.


def add_accuracy(report: Report, found: Findings) -> None:
    report.section("Accuracy by data set and arm")
    report.text(
        "Means over the trainings of an arm, each counted once over the whole side, with the "
        "weights of its best epoch on the validation side. `sd_of_seeds`, `lowest` and `highest` "
        "are of the trainings' accuracies. MCC is CoLA's own score; losses are in nats, without "
        "label smoothing."
    )
    rows = list(_rows(found))
    accuracy = [{**key, **_accuracy(found, judged, side)} for key, judged, side in rows]
    report.figure(
        "accuracy_by_arm",
        _bars(accuracy),
        "Test accuracy, with 95 % intervals. Where an arm gets all "
        "right, nothing tells how alike the examples of a group are, and each group counts once: "
        "the interval is wide.",
    )
    report.table("accuracy", _frame(accuracy), "Test accuracy.")
    others = [
        {**key, **_ends(found, judged, side, ("macro_f1", "mcc", "loss"))}
        for key, judged, side in rows
    ]
    report.table("other_scores", _frame(others), "Other scores of the same predictions.")


def add_differences(report: Report, found: Findings) -> None:
    """Also what each control takes away."""
    if not found.compared:
        return
    report.section("The main arm beside the others")
    report.text(rule_in_words())
    report.figure(
        "differences_by_arm",
        _forest(found),
        "Accuracy of the main arm less that of each other, on the same examples and seeds. Above "
        "0 the main arm is better. Where two arms are right on the same examples each group "
        "counts once, so that the interval is wide.",
    )
    frame = differences_table(found)
    caption = "`n_gained`: examples that the main arm gets right with more seeds; `n_lost`: fewer."
    report.table("differences", frame, caption, {**_POINTS, "p": ".2g", "q": ".2g"})
    controls = controls_table(found)
    if len(controls):
        report.subsection("What each control takes away")
        report.text(
            "A control is the main arm with one thing taken out and all else alike: data, order, "
            "seeds, rates. What the main arm has over it is what that thing was worth."
        )
        report.table(
            "controls", controls, "The difference is the main arm's less the control's.", _POINTS
        )


def differences_table(found: Findings) -> pl.DataFrame:
    """A row an arm beside a main one."""
    rows = []
    for one in found.sets:
        for other in found.of_set(one.name):
            rows.append(
                {
                    "data_set": one.name,
                    "beside": other.arm.name,
                    "layer": other.arm.layer,
                    **_interval("difference", other.interval),
                    "p": other.difference.p,
                    "q": other.q,
                    "outcome": other.outcome,
                    "n_gained": other.difference.n_gained,
                    "n_lost": other.difference.n_lost,
                    "n": one.n,
                    "n_groups": one.side.draws.n_groups,
                    "n_seeds": found.config.seeds,
                }
            )
    return _frame(rows)


def controls_table(found: Findings) -> pl.DataFrame:
    rows = []
    for one in found.sets:
        for other in found.of_set(one.name):
            if not is_control(other.arm):
                continue
            taken, left = TAKEN[other.arm.name]
            judged = one.judged[other.arm.key]
            rows.append(
                {
                    "data_set": one.name,
                    "control": other.arm.name,
                    "accuracy": float(judged.right.mean()),
                    **_interval("difference", other.interval),
                    "outcome": other.outcome,
                    "taken_away": taken,
                    "left": left,
                }
            )
    return _frame(rows)


def _rows(found: Findings) -> Iterator[tuple[Row, Judged, Side]]:
    """What accuracies are told of: arms on test sides, their parts, and other sets' test sides."""
    for one in found.sets:
        for arm in one.arms:
            judged = one.judged[arm.key]
            yield _key(one, "test", arm), judged, one.side
        for part, side in _parts(found, one).items():
            is_in = np.array([own == part for own in one.side.parts])
            for arm in found.named_arms(one):
                yield _key(one, f"test, {part}", arm), one.judged[arm.key].only(is_in), side
        for name, (judged, side) in one.elsewhere.items():
            yield _key(one, f"test of {name}", one.main), judged, side


def _parts(found: Findings, one: SetFindings) -> dict[str, Side]:
    """Where the test side has several, such as MNLI's."""
    names = sorted(set(one.side.parts))
    if len(names) < 2:
        return {}
    config, sides = found.config, {}
    for name in names:
        groups = [
            g for g, part in zip(one.side.groups, one.side.parts, strict=True) if part == name
        ]
        sides[name] = Side(groups, [name] * len(groups), Draws(groups, config.seeds, config.seed))
    return sides


def _key(one: SetFindings, judged_on: str, arm: Arm) -> Row:
    return {"data_set": one.name, "judged_on": judged_on, "arm": arm.name, "layer": arm.layer}


def _accuracy(found: Findings, judged: Judged, side: Side) -> Row:
    seeds = judged.right.mean(axis=1)
    return {
        **_ends(found, judged, side, ("accuracy",)),
        "sd_of_seeds": float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
        "lowest": float(seeds.min()),
        "highest": float(seeds.max()),
        "n_seeds": len(seeds),
        "n": len(side.groups),
        "n_groups": side.draws.n_groups,
    }


def _ends(found: Findings, judged: Judged, side: Side, names: tuple[str, ...]) -> Row:
    scores = found.scores(judged, side)
    return {key: value for name in names for key, value in _interval(name, scores[name]).items()}


def _interval(name: str, interval: Interval) -> Row:
    value, low, high = interval
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _frame(rows: list[Row]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if "layer" in frame.columns:
        frame = frame.with_columns(pl.col("layer").cast(pl.Int64))
    return without_nan(frame)


def _bars(rows: list[Row]) -> Chart:
    """On the sets' own test sides; a panel a set."""
    panels: dict[str, list[Mark]] = {}
    for row in rows:
        if row["judged_on"] == "test":
            panels.setdefault(row["data_set"], [])
    for name, marks in panels.items():
        own = [row for row in rows if row["data_set"] == name and row["judged_on"] == "test"]
        marks.append(
            Bars(
                "accuracy",
                [_short(row["arm"], row["layer"], own) for row in own],
                [row["accuracy"] for row in own],
                [row["accuracy_low"] for row in own],
                [row["accuracy_high"] for row in own],
            )
        )
    return Chart.grid(panels, y="test accuracy", columns=2)


def _forest(found: Findings) -> Chart:
    panels: dict[str, list[Mark]] = {}
    for one in found.sets:
        own = found.of_set(one.name)
        rows = [{"arm": other.arm.name} for other in own]
        ends = [other.interval for other in own]
        panels[one.name] = [
            Bars(
                "difference",
                [_short(other.arm.name, other.arm.layer, rows) for other in own],
                [value for value, *_ in ends],
                [low for _, low, _ in ends],
                [high for *_, high in ends],
            )
        ]
    return Chart.grid(panels, y="difference", columns=2)


def _short(name: str, layer: int | None, rows: list[Row]) -> str:
    """With its layer only where another has the same name."""
    n = sum(row["arm"] == name for row in rows)
    return name if layer is None or n == 1 else f"{name} {layer}"
