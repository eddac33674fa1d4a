"""A probe of the layer that is best, where which one that is may not be taken from the test.

Of many layers some are good by luck: the best of 24 probes of noise scores well above 0.5 on the
rows by which it was picked.

Axes: n rows, l layers, d_model.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from fluoroscope.studies.hallucination.detection.columns import Columns
from fluoroscope.studies.hallucination.detection.detectors import Fitted, base_rate
from fluoroscope.studies.hallucination.detection.logistic import PENALTIES, learn_logistic


@dataclass(frozen=True)
class BestLayer:
    """The logistic probe of one layer: that of the least log loss in inner folds of groups, the
    same for all layers. Without inner folds it is the first one. Rows are [l, d_model], or
    [d_model] where there is one layer.
    """

    penalties: tuple[float, ...] = PENALTIES

    def fit(
        self,
        x: Shaped[np.ndarray, "n ..."],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Fitted:
        found, layers = [], _by_layer(x)
        for layer in range(layers.shape[1]):
            columns = Columns.of(layers[:, layer])
            if len(columns.kept):
                rows = columns.prepare(layers[:, layer])
                scores, loss = learn_logistic(rows, labels, groups, self.penalties, seed)
                found.append((loss, layer, columns, scores))
        if not found:
            return Fitted(base_rate(labels))
        _, best, columns, scores = min(found, key=lambda one: one[:2])
        return Fitted(
            lambda rows: scores(columns.prepare(_by_layer(rows)[:, best])),
            tuple(best * layers.shape[2] + i for i in columns.constant),
            tuple(best * layers.shape[2] + i for i in columns.filled),
        )


def _by_layer(x: Shaped[np.ndarray, "n ..."]) -> Float[np.ndarray, "n l d_model"]:
    return x if x.ndim == 3 else x[:, None]
