"""Points for the screen: which of them are shown, their colours, and words beside them."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fluoroscope.plots.chart import Chart, Panel
from fluoroscope.plots.labels import label_places
from fluoroscope.plots.marks import Scatter
from fluoroscope.plots.style import RAMPS
from fluoroscope.plots.thinning import is_drawable, kept_points, points_a_series, thinned_words

# A page and its figures in pixels, about: what words beside points must fit in.
_PAGE_WIDTH, _AXIS_WIDTH, _HEIGHT, _HEIGHT_OF_MANY = 880, 50, 290, 130


def point_trace(mark: Scatter, color: str, chart: Chart, panel: Panel) -> go.Scatter:
    kept = _shown(mark, chart, panel)
    marker: dict[str, object] = {
        "color": color,
        "size": _diameter(mark, chart),
        "opacity": mark.opacity,
        "line": {"width": 0},
    }
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
    """Words beside points, as they are on paper."""
    drawable = _drawable(mark, chart, panel)
    kept = [index for index in mark.annotations if index in drawable]
    x, y = _numbers(mark.x)[kept], _numbers(mark.y)[kept]
    texts = [mark.annotations[index] for index in kept]
    points = np.stack([chart.shares("x", panel, x), chart.shares("y", panel, y)], axis=1)
    columns = min(chart.columns, len(chart.panels))
    width = _PAGE_WIDTH / columns - _AXIS_WIDTH
    words = [7 * len(text) / width for text in texts]
    lines = (14 / width, 14 / (_HEIGHT if len(chart.panels) == 1 else _HEIGHT_OF_MANY))
    is_log = chart.axis("x", panel).log, chart.axis("y", panel).log
    places = label_places(points, words, lines)
    for text, at_x, at_y, place in zip(texts, x, y, places, strict=True):
        if place is None:
            continue
        figure.add_annotation(
            text=escape(text),
            # Plotly places words on a log axis by the logarithm.
            x=math.log10(at_x) if is_log[0] else at_x,
            y=math.log10(at_y) if is_log[1] else at_y,
            font={"size": 11},
            xanchor=place.horizontal,
            yanchor={"center": "middle"}.get(place.vertical, place.vertical),
            # An arrow of no head, as long as the words are away; pixels go down.
            showarrow=True,
            arrowhead=0,
            arrowwidth=1 if place.is_far else 0.1,
            ax=14 * place.right,
            ay=-14 * place.up,
        )


def words_below(chart: Chart, panel: Panel) -> str:
    """The panel's note, and how many of its points are shown if not all."""
    said = [panel.note] if panel.marks and panel.note else []
    points = [mark for mark in panel.marks if isinstance(mark, Scatter)]
    if chart.most_points is not None and points:
        n_drawable = sum(len(_drawable(mark, chart, panel)) for mark in points)
        shown = [_shown(mark, chart, panel) for mark in points]
        said.append(thinned_words(sum(len(k) for k in shown if k is not None), n_drawable))
    return "<br>".join(escape(words) for words in said if words)


def color_scale(anchors: Sequence[str]) -> list[list[object]]:
    return [[i / (len(anchors) - 1), color] for i, color in enumerate(anchors)]


def _diameter(mark: Scatter, chart: Chart) -> float | int:
    """Pixels, 6 for the usual size; a page is not enlarged as a sheet is, nor are its points."""
    size = max(6 * math.sqrt(mark.size / 14) / chart.sheet.scale, 2)
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
