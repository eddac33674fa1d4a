"""Charts for paper: png and pdf of the same bytes for the same chart, with no date inside."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator
from numpy.typing import ArrayLike

from fluoroscope.core.storage import atomic_path
from fluoroscope.plots.chart import (
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
from fluoroscope.plots.style import (
    MATPLOTLIB_STYLE,
    MUTED,
    PANEL_INCHES,
    PNG_DPI,
    RAMPS,
    SINGLE_INCHES,
)
from fluoroscope.plots.ticks import log_text, log_ticks

_DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}


def matplotlib_figure(chart: Chart) -> Figure:
    """The whole chart, all panels and one legend; no global state of matplotlib is touched."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        columns = min(chart.columns, len(chart.panels))
        rows = math.ceil(len(chart.panels) / columns)
        figure = Figure(figsize=_size(chart, columns, rows), layout="constrained")
        FigureCanvasAgg(figure)
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        shades = chart.series_colors
        for i, axes in enumerate(places):
            if i >= len(chart.panels):
                axes.remove()
                continue
            _draw_panel(axes, chart, chart.panels[i], shades)
            is_last_row = i + columns >= len(chart.panels)
            axes.set_xlabel(chart.x.label if is_last_row else "")
            axes.set_ylabel(chart.y.label if i % columns == 0 else "")
        if chart.needs_legend:
            _draw_legend(figure, places)
        return figure


def save_chart(chart: Chart, path: Path) -> None:
    """Writes `path`, a .png or a .pdf."""
    kind = path.suffix.removeprefix(".")
    if kind not in ("png", "pdf"):
        raise ValueError(f"A chart is saved as .png or .pdf, got {path.name!r}.")
    figure = matplotlib_figure(chart)
    dateless = {"CreationDate": None, "ModDate": None} if kind == "pdf" else {"Software": None}
    with matplotlib.rc_context(MATPLOTLIB_STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=PNG_DPI, metadata=dateless)


def _size(chart: Chart, columns: int, rows: int) -> tuple[float, float]:
    if len(chart.panels) > 1:
        width, height = PANEL_INCHES
        return (max(width * columns, SINGLE_INCHES[0]), height * rows + 0.3)
    width, height = SINGLE_INCHES
    maps = [mark for mark in chart.panels[0].marks if isinstance(mark, Heatmap)]
    rows_of_map = max((len(mark.y_names) for mark in maps), default=0)
    return (width, max(height, 0.22 * rows_of_map + 1.0))


def _draw_panel(axes: Axes, chart: Chart, panel: Panel, shades: Mapping[str, str]) -> None:
    bars = [mark for mark in panel.marks if isinstance(mark, Bars)]
    for mark in panel.marks:
        if isinstance(mark, Bars):
            _draw_bars(axes, mark, shades[mark.name], bars.index(mark), len(bars))
        else:
            _draw_mark(axes, mark, shades)
    axes.set_title(panel.title)
    if any(isinstance(mark, Heatmap) for mark in panel.marks):
        return
    if not bars:
        _set_axis(axes, chart, panel, "x")
    _set_axis(axes, chart, panel, "y")
    axes.grid(visible=not bars, axis="x")
    for line in panel.references:
        _draw_reference(axes, line)


def _draw_mark(axes: Axes, mark: Mark, shades: Mapping[str, str]) -> None:
    match mark:
        case Line():
            _draw_line(axes, mark, shades[mark.name])
        case Histogram():
            counts, edges, color = _numbers(mark.counts), _numbers(mark.edges), shades[mark.name]
            axes.stairs(counts, edges, fill=True, alpha=0.28, color=color, label=mark.name)
            axes.stairs(counts, edges, linewidth=1, color=color)
        case Scatter():
            axes.scatter(
                _numbers(mark.x),
                _numbers(mark.y),
                s=14,
                alpha=0.7,
                linewidths=0,
                color=shades[mark.name],
                label=mark.name,
            )
        case Heatmap():
            _draw_heatmap(axes, mark)
        case Bars():
            raise AssertionError("bars are drawn in groups by _draw_panel")


def _draw_line(axes: Axes, mark: Line, color: str) -> None:
    x = _numbers(mark.x)
    if mark.low is not None and mark.high is not None:
        low, high = _numbers(mark.low), _numbers(mark.high)
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(
        x,
        _numbers(mark.y),
        _DASHES[mark.style],
        color=color,
        label=mark.name,
        marker="o" if mark.markers else None,
        markersize=4,
    )


def _draw_bars(axes: Axes, mark: Bars, color: str, i: int, n: int) -> None:
    width = 0.75 / n
    places = np.arange(len(mark.categories)) + (i - (n - 1) / 2) * width
    y = _numbers(mark.y)
    axes.bar(places, y, width * 0.92, color=color, label=mark.name)
    if mark.low is not None and mark.high is not None:
        ends = np.stack([y - _numbers(mark.low), _numbers(mark.high) - y])
        axes.errorbar(places, y, ends, fmt="none", ecolor=MUTED, elinewidth=1, capsize=2)
    names = list(mark.categories)
    # A panel is about 40 characters wide; names that do not fit side by side are slanted.
    slant = {"rotation": 30, "ha": "right"} if sum(len(name) + 2 for name in names) > 40 else {}
    axes.set_xticks(range(len(names)), names, **slant)


def _draw_heatmap(axes: Axes, mark: Heatmap) -> None:
    low, high = mark.color_limits
    values = _numbers(mark.values)
    ramp = LinearSegmentedColormap.from_list(mark.ramp, RAMPS[mark.ramp])
    image = axes.imshow(
        values, cmap=ramp, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    _set_names(axes, "x", mark.x_names)
    _set_names(axes, "y", mark.y_names)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, label=mark.label, shrink=0.9, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    if not mark.has_cell_texts:
        return
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = ramp((value - low) / (high - low))
        is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ink = "white" if is_dark else "#1c2327"
        axes.text(column, row, f"{value:.2g}", ha="center", va="center", color=ink, fontsize=7)


def _set_names(axes: Axes, side: Side, names: Sequence[str]) -> None:
    places = range(0, len(names), max(1, math.ceil(len(names) / 24)))
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_ticks(list(places), [names[i] for i in places])


def _set_axis(axes: Axes, chart: Chart, panel: Panel, side: Side) -> None:
    declared = chart.x if side == "x" else chart.y
    axis = axes.xaxis if side == "x" else axes.yaxis
    limits = chart.limits(side, panel)
    if limits is None:
        return
    if declared.log:
        ticks = log_ticks(*limits)
        axes.set(**{f"{side}scale": "log", f"{side}lim": limits})
        axis.set_ticks(ticks, [log_text(tick) for tick in ticks])
        axis.set_minor_locator(NullLocator())
        return
    axes.set(**{f"{side}lim": limits})
    whole = chart.whole_ticks(side)
    if whole is not None:
        axis.set_ticks(whole)
    elif max(abs(end) for end in limits) >= 1e4:
        axis.set_major_formatter(EngFormatter(sep=""))


def _draw_reference(axes: Axes, line: Reference) -> None:
    style = {"color": MUTED, "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}
    words = {"color": MUTED, "fontsize": 7.5}
    if line.axis == "y":
        axes.axhline(line.value, **style)
        place = (1, line.value)
        axes.annotate(
            line.label,
            place,
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            **words,
        )
        return
    axes.axvline(line.value, **style)
    axes.annotate(
        line.label,
        (line.value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -2),
        textcoords="offset points",
        ha="left",
        va="top",
        **words,
    )


def _draw_legend(figure: Figure, places: np.ndarray) -> None:
    handles: dict[str, Artist] = {}
    for axes in places:
        if axes.figure is None:
            continue
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper left", ncols=min(len(handles), 6)
    )


def _numbers(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
