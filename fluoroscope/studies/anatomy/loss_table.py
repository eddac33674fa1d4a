"""Losses of sequences -> differences, recovered shares and means by position, with intervals.

Sums are kept of each sequence, and sequences are drawn again for the intervals: tokens of one are
not independent.

Axes: q sequences, p positions.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from fluoroscope.core.intervals import ratio_interval
from fluoroscope.studies.anatomy.splicing import CLEAN, MEAN, RECONSTRUCTED, ZERO

Losses = Mapping[str, Float[np.ndarray, "q p"]]
"""`clean`, `reconstructed`, and perhaps `mean` and `zero`."""


def loss_row(losses: Losses, counted: Bool[np.ndarray, "q p"], seed: int) -> dict[str, list[float]]:
    """Each as value, low and high: `clean`, `reconstructed`, `mean`, `zero` and `difference` in
    nats a token; `recovered_of_mean` and `recovered_of_zero` as shares.
    """
    n = counted.sum(axis=1).astype(float)
    sums = {way: np.where(counted, one, 0.0).sum(axis=1) for way, one in losses.items()}
    found = {way: list(ratio_interval(total, n, seed)) for way, total in sums.items()}
    difference = sums[RECONSTRUCTED] - sums[CLEAN]
    found["difference"] = list(ratio_interval(difference, n, seed))
    for way in (MEAN, ZERO):
        if way in sums:
            kept, lost = sums[way] - sums[RECONSTRUCTED], sums[way] - sums[CLEAN]
            found[f"recovered_of_{way}"] = list(ratio_interval(kept, lost, seed))
    return found
