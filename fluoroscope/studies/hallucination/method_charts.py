"""Charts that set methods beside each other, from their scores alone."""

from collections.abc import Mapping

import numpy as np

from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Panel, Reference, Scatter
from fluoroscope.studies.hallucination.charts import THRESHOLD
from fluoroscope.studies.hallucination.detection.curves import (
    N_POINTS,
    Curve,
    precision_curve,
    roc_curve,
)
from fluoroscope.studies.hallucination.detection.scores import Confusion, Scored, confusion

_GREY = "#8a8f98"


def roc_of_methods(found: Mapping[str, Scored], threshold: float = THRESHOLD) -> Chart:
    """A curve a method, and the point at which it works with that threshold."""
    marks: list[Mark] = [Line("chance", [0, 1], [0, 1], style="dotted", color=_GREY)]
    for name, rows in found.items():
        one = confusion(rows, threshold)
        false_alarms = one.false_positives / (one.false_positives + one.true_negatives)
        # Named as its line, it has the same colour and is hidden with it.
        point = Scatter(name, [false_alarms], [_recall(one)], [f"{name} at {threshold:g}"])
        marks += [Line(name, *roc_curve(rows)), point]
    return Chart(
        [Panel(marks)],
        Axis("share of true answers flagged", limits=(0, 1)),
        Axis("share of made-up answers flagged", limits=(0, 1.02)),
    )


def precision_of_methods(found: Mapping[str, Scored], threshold: float = THRESHOLD) -> Chart:
    """Precision over recall; no point for a method that flags nothing."""
    marks: list[Mark] = []
    for name, rows in found.items():
        one = confusion(rows, threshold)
        marks.append(Line(name, *_thinned(precision_curve(rows))))
        if n_flagged := one.true_positives + one.false_positives:
            precision = one.true_positives / n_flagged
            marks.append(Scatter(name, [_recall(one)], [precision], [f"{name} at {threshold:g}"]))
    share = float(next(iter(found.values())).labels.mean())
    return Chart(
        [Panel(marks, references=[Reference(share, "all flagged")])],
        Axis("share of made-up answers flagged (recall)", limits=(0, 1)),
        Axis("share of flagged made up (precision)", limits=(0, 1.02)),
    )


def _recall(counts: Confusion) -> float:
    return counts.true_positives / (counts.true_positives + counts.false_negatives)


def _thinned(curve: Curve) -> Curve:
    if len(curve.x) <= N_POINTS:
        return curve
    some = np.linspace(0, len(curve.x) - 1, N_POINTS).round().astype(int)
    return Curve(curve.x[some], curve.y[some])
