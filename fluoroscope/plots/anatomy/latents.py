"""Sizes and frequencies of latents (F8 to F12).

A latent that is never active has a mean, count and density of 0 (or NaN) and no place on a log
axis; panels of F8 to F10 say how many there are. F11 and F12 count active latents alone.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Real

from fluoroscope.plots.anatomy.layers import (
    PerLayer,
    check_layers,
    dead_note,
    drawable,
    layer_colors,
    layer_grid,
    one_panel,
    point_size,
    titled_panel,
)
from fluoroscope.plots.chart import Axis, Chart
from fluoroscope.plots.marks import Histogram, Line, Mark, Scatter

_DENSITY = Axis("density", log=True)
_MEAN = Axis("mean activation", log=True)


def latent_mean_against_density(
    names: Sequence[str], means: PerLayer, densities: PerLayer
) -> Chart:
    """F8: mean non-zero activation (x, log) and density (y, log), a point a latent."""
    title = "Mean activation and density of each latent"
    return _latents_against(names, means, densities, title, _MEAN)


def latent_count_against_density(
    names: Sequence[str], counts: PerLayer, densities: PerLayer
) -> Chart:
    """Number of activations (x, log) and density (y, log), a point a latent.

    The points of a layer lie on one line, whose height is the number of tokens it saw.
    """
    title = "Number of activations and density of each latent"
    x = Axis("number of activations", log=True)
    return _latents_against(names, counts, densities, title, x)


def density_histograms(names: Sequence[str], densities: PerLayer, *, n_bins: int = 40) -> Chart:
    """How many latents (y) have which density (x, log)."""
    check_layers(names, densities=densities)
    shades = layer_colors(names)
    active = [one[drawable(one, positive=True)] for one in densities]
    edges = _log_edges(np.concatenate(active), n_bins)
    panels = []
    for name, own, density in zip(names, active, densities, strict=True):
        counts, _ = np.histogram(own, edges)
        marks = [Histogram(name, edges, counts, color=shades[name])] if own.size else []
        panels.append(titled_panel(name, marks, dead_note(len(own), len(density))))
    title, y = "Densities of the latents", Axis("number of latents")
    return layer_grid(panels, title, _DENSITY, y, legend=False)


def latent_mean_densities(names: Sequence[str], means: PerLayer) -> Chart:
    """F9: distribution of the latents' mean activations (x, log), all layers in one pair of axes.

    y is a kernel density estimate over log10 of the means (bandwidth by Scott's rule), so that
    the area below each curve is one a decade.
    """
    check_layers(names, means=means)
    active = [np.log10(one[drawable(one, positive=True)]) for one in means]
    kept = [(name, own) for name, own in zip(names, active, strict=True) if own.size]
    shades = layer_colors(names)
    marks: list[Mark] = []
    for name, own in kept:
        places, heights = kernel_density(own)
        floor = np.zeros_like(heights)
        x = 10.0**places
        marks.append(Line(name, x, heights, floor, heights, color=shades[name], opacity=0.7))
    top = max((float(np.max(mark.y)) for mark in marks if isinstance(mark, Line)), default=1.0)
    note = dead_note(sum(map(len, active)), sum(map(len, means)))
    return one_panel(
        titled_panel("", marks, note),
        "Distribution of the latents' mean activations",
        _MEAN,
        Axis("density of latents a decade", limits=(0, 1.05 * top)),
    )


def latent_mean_against_std(names: Sequence[str], means: PerLayer, stds: PerLayer) -> Chart:
    """F10: mean (x, log) and standard deviation (y, log) of the non-zero activations.

    A point a latent, a colour a layer. A latent that was active once has no deviation; like one
    that was never active it has no point.
    """
    check_layers(names, means=means, stds=stds)
    shades = layer_colors(names)
    marks: list[Mark] = []
    n_shown, n_latents = 0, sum(map(len, means))
    for name, mean, std in zip(names, means, stds, strict=True):
        kept = drawable(mean, std, positive=True)
        n_shown += len(kept)
        if kept.size:
            size = point_size(len(means) * len(mean))
            marks.append(Scatter(name, mean[kept], std[kept], color=shades[name], size=size))
    without = f"{n_latents - n_shown:,} of {n_latents:,} latents have no deviation, or no mean"
    note = without if n_shown < n_latents else ""
    return one_panel(
        titled_panel("", marks, note, absent="no latent was active twice"),
        "Mean and standard deviation of each latent's activations",
        _MEAN,
        Axis("standard deviation", log=True),
    )


def count_curves(
    names: Sequence[str], thresholds: PerLayer, counts: PerLayer, *, statistic: str
) -> Chart:
    """F11 (`statistic="median"`) and F12 (`"mean"`): a curve a layer.

    y is the number of active latents whose median, or mean, is at most the threshold (x).
    """
    check_layers(names, thresholds=thresholds, counts=counts)
    shades = layer_colors(names)
    marks: list[Mark] = [
        Line(name, threshold, count, color=shades[name], opacity=0.8)
        for name, threshold, count in zip(names, thresholds, counts, strict=True)
        if (np.asarray(count) > 0).any()
    ]
    return one_panel(
        titled_panel("", marks),
        f"Latents with a {statistic} activation of at most a threshold",
        Axis(f"threshold on the {statistic} activation"),
        Axis("number of latents"),
    )


def kernel_density(
    values: Real[np.ndarray, " values"], n_places: int = 400
) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"]]:
    """Places and Gaussian kernel density, with a bandwidth of std * n^(-1/5) (Scott 1992).

    Values are first counted in bins that are far finer than the bandwidth.
    """
    # A single value, or equal ones, have no spread: they are drawn as a narrow peak.
    spread = max(float(values.std(ddof=1)) if len(values) > 1 else 0.0, 0.02)
    bandwidth = spread * len(values) ** -0.2
    low, high = float(values.min()) - 3 * bandwidth, float(values.max()) + 3 * bandwidth
    n_bins = max(n_places, int(np.ceil(8 * (high - low) / bandwidth)))
    counts, edges = np.histogram(values, n_bins, (low, high))
    middles = (edges[:-1] + edges[1:])[counts > 0] / 2
    places = np.linspace(low, high, n_places)
    distances = (places[:, None] - middles) / bandwidth
    kernels = np.exp(-0.5 * distances**2) / (bandwidth * np.sqrt(2 * np.pi))
    return places, kernels @ counts[counts > 0] / len(values)


def _log_edges(values: Real[np.ndarray, " values"], n_bins: int) -> Float[np.ndarray, " edges"]:
    """Edges of equal ratio that hold all values."""
    if not values.size:
        return np.geomspace(1e-3, 1.0, n_bins + 1)
    low, high = float(values.min()), float(values.max())
    # Rounding must not push the extreme values out of their bins.
    return np.geomspace(low * (1 - 1e-9), max(high, 1.01 * low) * (1 + 1e-9), n_bins + 1)


def _latents_against(
    names: Sequence[str], x: PerLayer, densities: PerLayer, title: str, x_axis: Axis
) -> Chart:
    check_layers(names, values=x, densities=densities)
    shades, panels = layer_colors(names), []
    for name, values, density in zip(names, x, densities, strict=True):
        kept = drawable(values, density, positive=True)
        size = point_size(len(values))
        points = Scatter(name, values[kept], density[kept], color=shades[name], size=size)
        marks = [points] if kept.size else []
        panels.append(titled_panel(name, marks, dead_note(len(kept), len(values))))
    return layer_grid(panels, title, x_axis, _DENSITY, legend=False)
