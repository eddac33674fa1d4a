"""What latents do at each position of the context (F3 to F7).

Arrays go over all positions, of which 0 is the BOS token's; figures cut the positions before
`first_position` themselves, so that every point keeps its true position. A mean of 0 or NaN is a
position at which nothing was active, and has no point.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
from jaxtyping import Int, Real

from fluoroscope.plots.anatomy.layers import (
    PerLayer,
    check_layers,
    context_of,
    counting_axis,
    drawable,
    layer_colors,
    layer_grid,
    measured,
    one_panel,
    titled_panel,
)
from fluoroscope.plots.anatomy.outliers import MOST_OUTLIERS, outliers
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Line, Mark, Scatter
from fluoroscope.plots.palettes import PLAIN_GREY, POSITION_PALETTE

POSITION = "token index"


def position_mean_against_std(
    names: Sequence[str],
    means: PerLayer,
    stds: PerLayer,
    *,
    first_position: int = 1,
    outlier_above: float | None = None,
) -> Chart:
    """F3: mean (x) and standard deviation (y) of the non-zero activations, a point a position.

    Outliers are annotated with their position: means above `outlier_above`, or by default means
    and deviations beyond their median and five median absolute deviations.
    """
    check_layers(names, means=means, stds=stds)
    panels = []
    for name, mean, std in zip(names, measured(means), stds, strict=True):
        shown = drawable(mean, std)
        shown = shown[shown >= first_position]
        far = list(outliers(mean[shown], outlier_above))
        if outlier_above is None:
            # By turns, so that means do not take all the places from deviations.
            turns = zip_longest(far, outliers(std[shown]))
            far = list(dict.fromkeys(i for turn in turns for i in turn if i is not None))
        texts = {int(i): str(shown[i]) for i in far[:MOST_OUTLIERS]}
        marks = position_points("position", mean[shown], std[shown], shown, 20, texts)
        panels.append(titled_panel(name, marks))
    return layer_grid(
        panels,
        "Mean and standard deviation of the activations at each position",
        Axis("mean activation"),
        Axis("standard deviation"),
        share_x=False,
        share_y=False,
        legend=False,
    )


def position_means(names: Sequence[str], means: PerLayer, *, with_bos: bool) -> Chart:
    """F4 (with BOS) and F5 (without): mean non-zero activation (y) at each position (x).

    x goes from exactly 0 to the context's length - 1. y is logarithmic where the mean at BOS
    dwarfs those of the text, as it does in GPT-2 by a hundred times.
    """
    check_layers(names, means=means)
    first = 0 if with_bos else 1
    panels = [
        titled_panel(name, position_curve("mean", mean, first))
        for name, mean in zip(names, measured(means), strict=True)
    ]
    bos = "with BOS" if with_bos else "without BOS"
    return layer_grid(
        panels,
        f"Mean activation at each position, {bos}",
        counting_axis(POSITION, context_of(means)),
        Axis("mean activation", log=with_bos and _has_towering_bos(means)),
        share_y=False,
        legend=False,
    )


def smoothed_position_means(
    names: Sequence[str], means: PerLayer, *, window: int = 10, first_position: int = 1
) -> Chart:
    """F6: mean activation (y) at each position (x), all layers in one pair of axes.

    Each value is the mean of `window` positions, and stands at the middle of them; where fewer
    than half of them were measured there is none.
    """
    check_layers(names, means=means)
    shades = layer_colors(names)
    marks: list[Mark] = []
    for name, mean in zip(names, measured(means), strict=True):
        x, y = moving_mean(mean, window, first_position)
        if np.isfinite(y).any():
            marks.append(Line(name, x, y, color=shades[name], opacity=0.7))
    return one_panel(
        titled_panel("", marks),
        f"Mean activation at each position, mean of {window} positions",
        counting_axis(POSITION, context_of(means)),
        Axis("mean activation"),
    )


def position_mean_against_density(
    names: Sequence[str], means: PerLayer, densities: PerLayer, *, first_position: int = 1
) -> Chart:
    """F7: mean activation (x) and share of active latents (y), a point a position."""
    return _positions_against(
        names,
        means,
        densities,
        first_position,
        "Mean activation and density of each position",
        Axis("mean activation"),
    )


def position_count_against_density(
    names: Sequence[str], counts: PerLayer, densities: PerLayer, *, first_position: int = 1
) -> Chart:
    """Activations (x) and share of active latents (y), a point a position.

    All positions on one line were seen in equally many sequences; others in fewer.
    """
    return _positions_against(
        names,
        counts,
        densities,
        first_position,
        "Number of activations and density of each position",
        Axis("number of activations"),
    )


def position_curve(
    name: str,
    values: Real[np.ndarray, " positions"],
    first_position: int,
    size: float = 30,
) -> list[Mark]:
    """A grey line, and points that are coloured by position on it; nothing if all is absent."""
    shown = drawable(values)
    shown = shown[shown >= first_position]
    if not shown.size:
        return []
    # The line keeps its gaps: positions that were never seen are not joined over.
    x = np.arange(first_position, len(values))
    line = Line(name, x, values[first_position:], color=PLAIN_GREY, opacity=0.5)
    return [line, *position_points(f"{name} at a position", shown, values[shown], shown, size)]


def position_points(
    name: str,
    x: Real[np.ndarray, " shown"],
    y: Real[np.ndarray, " shown"],
    shown: Int[np.ndarray, " shown"],
    size: float = 30,
    annotations: Mapping[int, str] | None = None,
) -> list[Mark]:
    """Points at (x, y), coloured by the positions `shown`; nothing if there are none."""
    if not shown.size:
        return []
    points = Scatter(
        name,
        x,
        y,
        values=shown,
        ramp=POSITION_PALETTE,
        value_label=POSITION,
        size=size,
        annotations=annotations or {},
    )
    return [points]


def moving_mean(
    values: Real[np.ndarray, " positions"], window: int, first_position: int
) -> tuple[Real[np.ndarray, " places"], Real[np.ndarray, " places"]]:
    """Middles and means of all stretches of `window` positions, which is cut to what there is.

    The mean is NaN where fewer than half of a stretch were measured, so that a line has a gap.
    """
    kept = np.asarray(values, np.float64)[first_position:]
    window = min(window, len(kept))
    if window < 1:
        return np.empty(0), np.empty(0)
    stretches = np.lib.stride_tricks.sliding_window_view(kept, window)
    present = np.isfinite(stretches)
    n = present.sum(axis=1)
    sums = np.where(present, stretches, 0.0).sum(axis=1)
    middles = first_position + np.arange(len(stretches)) + (window - 1) / 2
    return middles, np.divide(sums, n, out=np.full(len(n), np.nan), where=2 * n >= window)


def _has_towering_bos(means: PerLayer) -> bool:
    """Whether the first position is ten times the median of the others, in some layer."""
    for mean in measured(means):
        others = mean[drawable(mean)]
        if others.size and mean[0] > 10 * np.median(others):
            return True
    return False


def _positions_against(
    names: Sequence[str],
    x: PerLayer,
    densities: PerLayer,
    first_position: int,
    title: str,
    x_axis: Axis,
) -> Chart:
    check_layers(names, values=x, densities=densities)
    panels: list[Panel] = []
    for name, values, density in zip(names, measured(x), densities, strict=True):
        shown = drawable(values, density)
        shown = shown[shown >= first_position]
        marks = position_points("position", values[shown], density[shown], shown, 20)
        panels.append(titled_panel(name, marks))
    return layer_grid(
        panels, title, x_axis, Axis("density"), share_x=False, share_y=False, legend=False
    )
