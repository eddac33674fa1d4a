"""Quantiles of the activations of each latent (F1, F2)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Real

from fluoroscope.plots.anatomy.layers import (
    check_layers,
    counting_axis,
    dead_note,
    drawable,
    layer_grid,
    point_size,
    titled_panel,
)
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Mark, Scatter
from fluoroscope.plots.palettes import QUANTILE_PALETTE, palette_colors


def latent_quantiles(
    names: Sequence[str],
    quantiles: Sequence[Real[np.ndarray, "_ levels"]] | Real[np.ndarray, "_ _ levels"],
    *,
    with_bos: bool,
) -> Chart:
    """F1 (with BOS) and F2 (without): levels of the non-zero activations of each latent.

    x is the latent's index, y the activation (log); a cloud a level, dark for the lowest. A
    latent that is never active has a row of zeros and no points.
    """
    check_layers(names, quantiles=quantiles)
    n_latents = max(len(one) for one in quantiles)
    panels = [
        _quantile_panel(name, np.asarray(one, np.float64))
        for name, one in zip(names, quantiles, strict=True)
    ]
    bos = "with BOS" if with_bos else "without BOS"
    return layer_grid(
        panels,
        f"Quantiles of each latent's activations, {bos}",
        counting_axis("latent index", n_latents),
        Axis("activation", log=True),
        legend=any(panel.marks for panel in panels),
    )


def _quantile_panel(name: str, quantiles: Real[np.ndarray, "latents levels"]) -> Panel:
    n_latents, n_levels = quantiles.shape
    shades = palette_colors(QUANTILE_PALETTE, n_levels)
    size = point_size(n_latents)
    marks: list[Mark] = []
    for level in range(n_levels):
        latents = drawable(quantiles[:, level], positive=True)
        heights = quantiles[latents, level]
        if latents.size:
            word = f"Decile {level + 1}"
            marks.append(Scatter(word, latents, heights, color=shades[level], size=size))
    n_active = len(drawable(quantiles.max(axis=1), positive=True)) if n_levels else 0
    return titled_panel(name, marks, dead_note(n_active, n_latents))
