"""Points for the screen: which of them are shown, their colours, and words beside them."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fluoroscope.plots.chart import Chart, Panel
from fluoroscope.plots.labels import label_directions
from fluoroscope.plots.marks import Scatter
from fluoroscope.plots.style import RAMPS
from fluoroscope.plots.thinning import is_drawable, kept_points, points_a_series, thinned_words

# A panel of a page in pixels, about: what words beside points must fit in.
_PANEL_PIXELS = (320, 190)


def point_trace(mark: Scatter, color: str, chart: Chart, panel: Panel) -> go.Scatter:
    kept = _shown(mark, chart, panel)
    marker: dict[str, object] = {"color": color, "size": _diameter(mark), "opacity": mark.opacity}
    marker["line"] = {"width": 0}
    hover, bar = None, chart.color_bar
    if mark.values is not None and bar is not None:
        marker["color"] = _taken(mark.values, kept)
        marker["colorscale"] = color_scale(RAMPS[bar.ramp])
        marker |= {"cmin": bar.low, "cmax": bar.high}
        # The labels of a text would be lost, were they not asked for here as well.
        words = "" if mark.labels is None else "%{text}<br>"
        label = escape(mark.value_label)
        hover = f"{words}{label} %{{marker.color}}<br>%{{x}}, %{{y}}<extra></extra>"
    # Plotly reads a little HTML in texts; a label such as `<s>` must stay as it is.
    labels = None if mark.labels is None else [escape(label) for label in mark.labels]
    if labels is not None and kept is not None:
        labels = [labels[index] for index in kept]
    return go.Scatter(
        name=mark.name,
        legendgroup=mark.name,
        x=_taken(mark.x, kept),
        y=_taken(mark.y, kept),
        mode="markers",
        marker=marker,
        text=labels,
        hovertemplate=hover,
    )


def add_annotations(figure: go.Figure, chart: Chart, panel: Panel, mark: Scatter) -> None:
    kept = [index for index in _drawable(mark, chart, panel) if index in mark.annotations]
    x, y = _numbers(mark.x)[kept], _numbers(mark.y)[kept]
    texts = [mark.annotations[index] for index in kept]
    points = np.stack([chart.shares("x", panel, x), chart.shares("y", panel, y)], axis=1)
    widths = [7 * len(text) / _PANEL_PIXELS[0] for text in texts]
    ways = label_directions(points, widths, 14 / _PANEL_PIXELS[1])
    is_log = chart.axis("x", panel).log, chart.axis("y", panel).log
    for text, place_x, place_y, (right, up) in zip(texts, x, y, ways, strict=True):
        figure.add_annotation(
            text=escape(text),
            # Plotly places words on a log axis by the logarithm.
            x=math.log10(place_x) if is_log[0] else place_x,
            y=math.log10(place_y) if is_log[1] else place_y,
            showarrow=False,
            font={"size": 11},
            xanchor={1: "left", 0: "center", -1: "right"}[right],
            yanchor={1: "bottom", 0: "middle", -1: "top"}[up],
            xshift=4 * right,
            yshift=4 * up,
        )


def thinning_words(chart: Chart, panel: Panel) -> str:
    """What is said below the panel where it shows only some of its points."""
    points = [mark for mark in panel.marks if isinstance(mark, Scatter)]
    if chart.most_points is None or not points:
        return ""
    n_drawable = sum(len(_drawable(mark, chart, panel)) for mark in points)
    shown = [_shown(mark, chart, panel) for mark in points]
    return thinned_words(sum(len(kept) for kept in shown if kept is not None), n_drawable)


def color_scale(anchors: Sequence[str]) -> list[list[object]]:
    return [[i / (len(anchors) - 1), color] for i, color in enumerate(anchors)]


def _diameter(mark: Scatter) -> float | int:
    """Pixels, 6 for the usual size; points too small to be hit by a pointer are a bit larger."""
    size = max(6 * math.sqrt(mark.size / 14), 3)
    return int(size) if size == int(size) else round(size, 1)


def _shown(mark: Scatter, chart: Chart, panel: Panel) -> np.ndarray | None:
    """Indices of the points that the screen shows; None for all."""
    most = points_a_series(panel.marks, chart.most_points)
    if most is None:
        return None
    return kept_points(_drawable(mark, chart, panel), most, list(mark.annotations))


def _drawable(mark: Scatter, chart: Chart, panel: Panel) -> np.ndarray:
    log_x, log_y = chart.axis("x", panel).log, chart.axis("y", panel).log
    return np.flatnonzero(is_drawable(mark, log_x=log_x, log_y=log_y))


def _taken(values: ArrayLike, kept: np.ndarray | None) -> np.ndarray:
    """All values; or the kept ones in single precision, which halves the page."""
    return _numbers(values) if kept is None else _numbers(values)[kept].astype(np.float32)


def _numbers(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
