"""The statistics of `statistics.py` on dense arrays in float64, latent by latent: their truth.

Axes: q sequences, p positions, s latents.
"""

import numpy as np
from jaxtyping import Float

from fluoroscope.features.statistics import (
    EVERY,
    LEVELS,
    TEXT,
    LatentMoments,
    LatentStatistics,
    Layout,
    PositionMoments,
)

Dense = Float[np.ndarray, "q p s"]


def latent_statistics(latents: Dense, layout: Layout) -> LatentStatistics:
    text = layout.counted(TEXT)
    shares = [_position_share(latents[:, :, i], text) for i in range(latents.shape[2])]
    return LatentStatistics(
        _moments(latents, layout, EVERY), _moments(latents, layout, TEXT), np.array(shares)
    )


def _moments(latents: Dense, layout: Layout, which: str) -> LatentMoments:
    counted = layout.counted(which)
    rows = []
    for i in range(latents.shape[2]):
        values = latents[:, :, i][counted].astype(np.float64)
        active = values[values > 0]
        share = len(active) / max(len(values), 1)
        if len(active) == 0:
            rows.append([0.0, share, 0.0, 0.0, 0.0, *np.zeros(len(LEVELS))])
            continue
        quantiles = np.quantile(active, LEVELS)
        rows.append([len(active), share, active.mean(), active.std(), active.max(), *quantiles])
    table = np.array(rows).reshape(-1, 5 + len(LEVELS))
    return LatentMoments(
        count=table[:, 0].astype(np.int64),
        density=table[:, 1],
        mean=table[:, 2],
        std=table[:, 3],
        maximum=table[:, 4],
        quantiles=table[:, 5:],
    )


def _position_share(values: np.ndarray, counted: np.ndarray) -> float:
    groups = [values[counted[:, p], p].astype(np.float64) for p in range(values.shape[1])]
    groups = [group for group in groups if len(group)]
    together = np.concatenate(groups) if groups else np.zeros(0)
    if not together.any():
        return 0.0
    if len(together) <= len(groups):
        return np.nan
    total = ((together - together.mean()) ** 2).sum()
    between = sum(len(group) * (group.mean() - together.mean()) ** 2 for group in groups)
    noise = (total - between) / (len(together) - len(groups))
    varies = total > 1e-24 * len(together) * together.mean() ** 2
    return (between - (len(groups) - 1) * noise) / total if varies else 0.0


def position_statistics(latents: Dense, layout: Layout) -> PositionMoments:
    n_tokens = layout.exists.sum(axis=0)
    count, mean, std = (np.zeros(layout.context) for _ in range(3))
    for p in range(layout.context):
        values = latents[layout.exists[:, p], p].astype(np.float64)
        active = values[values > 0]
        count[p] = len(active)
        if len(active):
            mean[p], std[p] = active.mean(), active.std()
    density = count / np.maximum(n_tokens * latents.shape[2], 1)
    return PositionMoments(n_tokens, count.astype(np.int64), density, mean, std)
