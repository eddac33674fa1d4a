"""The errors of one method as a chart, from its scores alone."""

import numpy as np

from fluoroscope.plots.chart import Chart, Heatmap, Panel
from fluoroscope.studies.hallucination.detection.scores import Scored, confusion

THRESHOLD = 0.5
"""Score from which an answer is called made up."""


def confusion_chart(rows: Scored, threshold: float = THRESHOLD) -> Chart:
    """Shares of the true and of the made-up answers, whose numbers stand beside the names."""
    found = confusion(rows, threshold)
    table = np.array(
        [
            [found.true_negatives, found.false_positives],
            [found.false_negatives, found.true_positives],
        ]
    )
    sizes = table.sum(1)
    names = [f"{name} ({n:.0f})" for name, n in zip(("true", "made up"), sizes, strict=True)]
    said = ["called true", "called made up"]
    heat = Heatmap(table / sizes[:, None], said, names, "share of the row", limits=(0, 1))
    return Chart([Panel([heat])])
