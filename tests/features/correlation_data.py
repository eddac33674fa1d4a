"""Small pooled latents and outcomes for the tests of correlations, and the naive truth of them."""

import numpy as np
from scipy.sparse import csr_array

from fluoroscope.features.correlation import OutcomeMoments

DEAD, EVEN, FAR = 2, 4, 5
"""Latents that are never active, always the same, and always active around a million."""


def made(n=120, d_sae=16, seed=0, graded=False):
    """Pooled latents [n, d_sae] (dense) and outcomes; latent 0 goes along with the outcome."""
    random = np.random.default_rng(seed)
    y = random.random(n) if graded else (random.random(n) < 0.4).astype(float)
    drive = random.normal(size=(n, d_sae)) - random.uniform(-0.5, 1.0, d_sae)
    drive[:, 0] += 2 * y
    pooled = np.maximum(drive, 0)
    pooled[:, DEAD] = 0
    pooled[:, EVEN] = 0.3
    pooled[:, FAR] = 1e6 + random.normal(size=n) + y
    return pooled, y


def moments_of(pooled, outcomes, rows=None, batch=32, **settings):
    """Statistics of the rows, added `batch` at a time."""
    rows = np.arange(len(pooled)) if rows is None else np.asarray(rows)
    found = OutcomeMoments(pooled.shape[1], outcomes, **settings)
    for first in range(0, len(rows), batch):
        some = rows[first : first + batch]
        found.add(some, csr_array(pooled[some]))
    return found


def naive_pearson(x, y, weights=None):
    """Two passes, dense; NaN where one of both does not vary."""
    w = np.ones(len(y)) if weights is None else weights
    if w.sum() == 0 or np.ptp(x[w > 0]) == 0 or np.ptp(y[w > 0]) == 0:
        return np.nan
    dx, dy = x - np.average(x, weights=w), y - np.average(y, weights=w)
    return (w * dx * dy).sum() / np.sqrt((w * dx**2).sum() * (w * dy**2).sum())
