"""One SAE on two slices of a corpus: does a latent's distribution depend on the texts?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Real

from fluoroscope.plots.anatomy.layers import (
    PerLayer,
    check_layers,
    drawable,
    layer_colors,
    layer_grid,
    point_size,
    titled_panel,
)
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Histogram, Line, Mark, Scatter
from fluoroscope.plots.palettes import PLAIN_GREY
from fluoroscope.plots.style import CATEGORICAL


def latent_on_two_slices(
    latents: Sequence[str],
    slices: Mapping[str, Sequence[Real[np.ndarray, " _"]]],
    *,
    n_bins: int = 40,
) -> Chart:
    """Non-zero activations (x) of a latent on slices of the corpus, a panel a latent.

    y is the share of the slice's activations in each bin, so that slices of different length
    can be compared; `slices` are such as `{"first 400": ..., "last 400": ...}`.
    """
    check_layers(latents, **slices)
    panels = []
    for i, latent in enumerate(latents):
        own = {name: values[i][drawable(values[i])] for name, values in slices.items()}
        panels.append(_slice_panel(latent, own, n_bins))
    return layer_grid(
        panels,
        "Activations of the same latents on different texts",
        Axis("activation"),
        Axis("share of activations"),
        share_x=False,
        share_y=False,
        legend=any(panel.marks for panel in panels),
    )


def densities_on_two_slices(
    names: Sequence[str],
    first: PerLayer,
    second: PerLayer,
    slice_names: tuple[str, str] = ("first slice", "last slice"),
) -> Chart:
    """Density of each latent on one slice (x, log) and on another (y, log), a panel a layer.

    The line is where both are equal. Latents that are active on one slice alone are counted in
    the corner.
    """
    check_layers(names, first=first, second=second)
    shades, panels = layer_colors(names), []
    for name, one, other in zip(names, first, second, strict=True):
        kept = drawable(one, other, positive=True)
        n_single = len(drawable(one, positive=True)) + len(drawable(other, positive=True))
        n_single -= 2 * len(kept)
        marks: list[Mark] = []
        if kept.size:
            x, y = one[kept], other[kept]
            ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
            line = Line("equal", ends, ends, color=PLAIN_GREY, style="dashed", opacity=0.8)
            points = Scatter(name, x, y, color=shades[name], size=point_size(len(one)))
            marks = [points, line]
        note = f"{n_single:,} latents active on one slice alone" if n_single else ""
        panels.append(titled_panel(name, marks, note, absent="no latent active on both slices"))
    return layer_grid(
        panels,
        "Density of each latent on two slices of the corpus",
        Axis(f"density, {slice_names[0]}", log=True),
        Axis(f"density, {slice_names[1]}", log=True),
        legend=False,
    )


def _slice_panel(latent: str, values: Mapping[str, Float[np.ndarray, " _"]], n_bins: int) -> Panel:
    everything = np.concatenate([np.asarray(one, np.float64) for one in values.values()])
    marks: list[Mark] = []
    if everything.size:
        edges = np.histogram_bin_edges(everything, n_bins)
        for i, (name, one) in enumerate(values.items()):
            counts, _ = np.histogram(one, edges)
            shade = CATEGORICAL[i % len(CATEGORICAL)]
            marks.append(Histogram(name, edges, counts / max(len(one), 1), color=shade))
    counted = ", ".join(f"{name}: {len(one):,}" for name, one in values.items())
    return titled_panel(latent, marks, f"activations in {counted}", absent="never active")
