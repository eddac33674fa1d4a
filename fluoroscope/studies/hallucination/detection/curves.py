"""How good scores are at every threshold: curves whose areas are figures of `scores.metrics`.

Axes: n rows, q points of a curve.
"""

from typing import NamedTuple

import numpy as np
import sklearn.metrics
from jaxtyping import Float

from fluoroscope.studies.hallucination.detection.scores import Scored

N_POINTS = 201


class Curve(NamedTuple):
    x: Float[np.ndarray, " q"]
    y: Float[np.ndarray, " q"]


def roc_curve(rows: Scored) -> Curve:
    """Share of made-up answers that are flagged, where so many of the true ones are too.

    Of each fold alone, and averaged at equal shares of true answers (Fawcett 2006, section 7.1),
    folds weighted by their pairs: the area is the AUROC of `metrics`, up to the spacing of points.
    """
    x = np.linspace(0, 1, N_POINTS)
    total, n_pairs = np.zeros(N_POINTS), 0
    for scores, folds in zip(rows.scores, rows.folds, strict=True):
        for fold in np.unique(folds):
            here = folds == fold
            n_positive = int(rows.labels[here].sum())
            pairs = n_positive * (int(here.sum()) - n_positive)
            if pairs:
                flagged, found, _ = sklearn.metrics.roc_curve(rows.labels[here], scores[here])
                total += pairs * np.interp(x, flagged, found)
                n_pairs += pairs
    return Curve(np.append(0.0, x), np.append(0.0, total / max(1, n_pairs)))


def precision_curve(rows: Scored) -> Curve:
    """Share made up among those flagged, where 1, 2, ... n of the n made-up answers are flagged.

    All folds together, averaged over repeats; the mean is the AUPRC of `metrics`.
    """
    n_positive = int(rows.labels.sum())
    wanted = np.arange(1, n_positive + 1)
    total = np.zeros(n_positive)
    for scores in rows.scores:
        order = np.argsort(-scores, kind="stable")
        found = rows.labels[order].cumsum()
        # Rows of one score are flagged together.
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        place = np.searchsorted(found[ends], wanted)
        total += found[ends][place] / (ends[place] + 1)
    return Curve(wanted / n_positive, total / len(rows.scores))
