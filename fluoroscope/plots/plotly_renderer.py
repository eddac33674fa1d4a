"""Charts for the screen: one interactive plotly figure for each panel.

Panels are separate figures so that a page can lay them out to fit its window; shared axes
get the same limits, and the legend is one for all, drawn by the page. Backgrounds are
clear and inks are left to the page, which knows whether it is light or dark.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fluoroscope.plots.chart import (
    Axis,
    Bars,
    Chart,
    Heatmap,
    Histogram,
    Line,
    Mark,
    Panel,
    Reference,
    Scatter,
    Side,
)
from fluoroscope.plots.plotly_points import (
    add_annotations,
    color_scale,
    point_trace,
    words_below,
)
from fluoroscope.plots.style import RAMPS, RAMPS_IN_THE_DARK, translucent
from fluoroscope.plots.ticks import log_text, log_ticks

_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot"}


def plotly_figures(chart: Chart) -> list[go.Figure]:
    """One figure a panel, in order; series are named alike in all of them."""
    shades = chart.series_colors
    return [_panel_figure(chart, panel, shades) for panel in chart.panels]


def _panel_figure(chart: Chart, panel: Panel, shades: Mapping[str, str]) -> go.Figure:
    figure = go.Figure(layout=go.Layout(template=go.layout.Template()))
    for mark in panel.marks:
        figure.add_traces(list(_traces(mark, chart, panel, shades)))
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        bargap=0.25,
        bargroupgap=0.08,
        hovermode=_hover_mode(panel.marks),
    )
    if panel.note and not panel.marks:
        words = escape(panel.note)
        figure.add_annotation(text=words, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    if any(isinstance(mark, Heatmap) for mark in panel.marks):
        label = chart.axis("x", panel).label
        figure.update_xaxes(title=label, showgrid=False, zeroline=False, type="category")
        figure.update_yaxes(
            title=chart.axis("y", panel).label,
            showgrid=False,
            zeroline=False,
            type="category",
            autorange="reversed",
        )
        return figure
    figure.update_xaxes(_axis_settings(chart, panel, "x"))
    figure.update_yaxes(_axis_settings(chart, panel, "y"))
    for line in panel.references:
        _add_reference(figure, line, chart.axis(line.axis, panel))
    for mark in panel.marks:
        if isinstance(mark, Scatter) and mark.annotations:
            add_annotations(figure, chart, panel, mark)
    return figure


def _hover_mode(marks: Sequence[Mark]) -> str:
    # Points that say what they are say it one at a time.
    points = [mark for mark in marks if isinstance(mark, Scatter)]
    if any(mark.labels is not None or mark.values is not None for mark in points):
        return "closest"
    return "x unified" if any(isinstance(mark, Line) for mark in marks) else "closest"


def _axis_settings(chart: Chart, panel: Panel, side: Side) -> dict[str, object]:
    axis = chart.axis(side, panel)
    title = axis.label
    if side == "x" and (words := words_below(chart, panel)):
        # Plotly reads a little HTML, of which this is the way to a second, smaller line.
        title = f"{title}<br><sub>{words}</sub>"
    settings: dict[str, object] = {"title": title, "zeroline": False, "type": "linear"}
    if side == "x" and any(isinstance(mark, Bars) for mark in panel.marks):
        return settings | {"type": "category", "showgrid": False}
    limits = chart.limits(side, panel)
    if limits is not None and axis.log:
        ticks = log_ticks(*limits)
        if chart.columns > 3 and len(chart.panels) > 3:
            # Narrow panels would turn the numbers on their side.
            ticks = ticks[:: math.ceil(len(ticks) / 4)]
        settings |= {"type": "log", "range": [math.log10(end) for end in limits]}
        return settings | {"tickvals": ticks, "ticktext": [log_text(tick) for tick in ticks]}
    if limits is not None:
        settings["range"] = list(limits)
    elif panel.note:
        settings |= {"showticklabels": False, "showgrid": False}
    places = chart.ticks(side, panel)
    if axis.whole or not places:
        # A page knows how wide its panels are, and puts round ticks as they fit.
        return settings
    if axis.names is not None:
        settings["ticktext"] = [axis.names[int(place)] for place in places]
    return settings | {"tickvals": list(places)}


def _traces(
    mark: Mark, chart: Chart, panel: Panel, shades: Mapping[str, str]
) -> Sequence[go.Scatter | go.Bar | go.Heatmap]:
    match mark:
        case Line():
            return _line_traces(mark, shades[mark.name], chart)
        case Bars():
            return [_bar_trace(mark, shades[mark.name])]
        case Histogram():
            return [_histogram_trace(mark, shades[mark.name])]
        case Scatter():
            return [point_trace(mark, shades[mark.name], chart, panel)]
        case Heatmap():
            return [_heatmap_trace(mark)]


def _line_traces(mark: Line, color: str, chart: Chart) -> list[go.Scatter]:
    x = _numbers(mark.x)
    # Panels of an enlarged sheet are small on a page.
    width = 2 if chart.sheet.scale == 1 or len(chart.panels) == 1 else 1.3
    line = go.Scatter(
        name=mark.name,
        legendgroup=mark.name,
        x=x,
        y=_numbers(mark.y),
        mode="lines+markers" if mark.markers else "lines",
        line={"color": color, "width": width, "dash": _DASHES[mark.style]},
        marker={"color": color, "size": 6},
        opacity=None if mark.opacity == 1 else mark.opacity,
    )
    if mark.low is None or mark.high is None:
        return [line]
    edge = {
        "legendgroup": mark.name,
        "x": x,
        "mode": "lines",
        "line": {"width": 0, "color": color},
        "hoverinfo": "skip",
    }
    below = go.Scatter(y=_numbers(mark.low), **edge)
    above = go.Scatter(
        y=_numbers(mark.high),
        fill="tonexty",
        fillcolor=translucent(color, 0.2 * mark.opacity),
        **edge,
    )
    return [below, above, line]


def _bar_trace(mark: Bars, color: str) -> go.Bar:
    y = _numbers(mark.y)
    error = None
    if mark.low is not None and mark.high is not None:
        error = {
            "array": _numbers(mark.high) - y,
            "arrayminus": y - _numbers(mark.low),
            "thickness": 1.2,
            "width": 3,
        }
    return go.Bar(
        name=mark.name,
        legendgroup=mark.name,
        x=list(mark.categories),
        y=y,
        marker={"color": color, "cornerradius": 2},
        error_y=error,
    )


def _histogram_trace(mark: Histogram, color: str) -> go.Scatter:
    # A filled staircase: bars of unequal width cannot be drawn on a log axis.
    counts = _numbers(mark.counts)
    return go.Scatter(
        name=mark.name,
        legendgroup=mark.name,
        x=_numbers(mark.edges),
        y=np.append(counts, counts[-1:]),
        mode="lines",
        line={"color": color, "width": 1.2, "shape": "hv"},
        fill="tozeroy",
        fillcolor=translucent(color, 0.28),
    )


def _heatmap_trace(mark: Heatmap) -> go.Heatmap:
    low, high = mark.color_limits
    return go.Heatmap(
        z=_numbers(mark.values),
        x=list(mark.x_names),
        y=list(mark.y_names),
        zmin=low,
        zmax=high,
        colorscale=color_scale(RAMPS[mark.ramp]),
        meta={"dark": color_scale(RAMPS_IN_THE_DARK[mark.ramp])},
        xgap=1,
        ygap=1,
        texttemplate=f"%{{z:{mark.number_format}}}" if mark.has_cell_texts else None,
        colorbar={
            "title": {"text": mark.label, "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
        },
    )


def _add_reference(figure: go.Figure, line: Reference, axis: Axis) -> None:
    place = math.log10(line.value) if axis.log else line.value
    style = {"width": 1, "dash": "dash"}
    if line.axis == "y":
        shape = {"x0": 0, "x1": 1, "xref": "paper", "y0": line.value, "y1": line.value}
        words = {"x": 1, "xref": "paper", "xanchor": "right", "y": place, "yanchor": "bottom"}
    else:
        shape = {"y0": 0, "y1": 1, "yref": "paper", "x0": line.value, "x1": line.value}
        words = {"y": 1, "yref": "paper", "yanchor": "top", "x": place, "xanchor": "left"}
    figure.add_shape(type="line", line=style, name="reference", layer="below", **shape)
    if line.label:
        figure.add_annotation(text=line.label, showarrow=False, font={"size": 11}, **words)


def _numbers(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
