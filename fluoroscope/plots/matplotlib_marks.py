"""The marks of a chart as matplotlib's artists."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from numpy.typing import ArrayLike

from fluoroscope.plots.chart import Chart, Panel, Reference, Side
from fluoroscope.plots.labels import label_places
from fluoroscope.plots.marks import Bars, Heatmap, Histogram, Line, Mark, Scatter
from fluoroscope.plots.sheets import Sheet
from fluoroscope.plots.style import INK, MUTED, PANEL_INCHES, RAMPS, Ramp
from fluoroscope.plots.thinning import is_drawable

_DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}


def color_map(ramp: Ramp) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(ramp, RAMPS[ramp])


def draw_marks(axes: Axes, chart: Chart, panel: Panel, shades: Mapping[str, str]) -> None:
    bars = [mark for mark in panel.marks if isinstance(mark, Bars)]
    for mark in panel.marks:
        if isinstance(mark, Bars):
            shade, place = shades[mark.name], (bars.index(mark), len(bars))
            _draw_bars(axes, mark, shade, place, chart.sheet)
        else:
            _draw_mark(axes, mark, chart, panel, shades)


def draw_annotations(axes: Axes, chart: Chart, panel: Panel, mark: Scatter) -> None:
    """Words beside points, once the axes have their ends."""
    size, (width, height) = 7 * chart.sheet.scale, chart.sheet.panel
    x, y = _numbers(mark.x), _numbers(mark.y)
    kept = is_drawable(mark, log_x=chart.axis("x", panel).log, log_y=chart.axis("y", panel).log)
    texts = {index: text for index, text in mark.annotations.items() if kept[index]}
    places = np.asarray(list(texts), np.int64)
    shares = [chart.shares("x", panel, x[places]), chart.shares("y", panel, y[places])]
    words = [0.65 * size * len(text) / (72 * width) for text in texts.values()]
    lines = (1.2 * size / (72 * width), 1.2 * size / (72 * height))
    leader = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6}
    found = label_places(np.stack(shares, axis=1), words, lines)
    for (index, text), place in zip(texts.items(), found, strict=True):
        if place is None:
            continue
        axes.annotate(
            text,
            (x[index], y[index]),
            xytext=(1.2 * size * place.right, 1.2 * size * place.up),
            textcoords="offset points",
            ha=place.horizontal,
            va=place.vertical,
            fontsize=size,
            color=INK,
            arrowprops=leader if place.is_far else None,
        )


def draw_note(axes: Axes, panel: Panel, sheet: Sheet) -> None:
    """In the middle of an empty panel, or small above its right end, clear of all marks."""
    if panel.marks:
        small = {"fontsize": 7 * sheet.scale, "fontweight": "normal", "color": MUTED}
        axes.set_title(panel.note, loc="right", fontdict=small)
        return
    axes.text(0.5, 0.5, panel.note, ha="center", va="center", color=MUTED, transform=axes.transAxes)


def draw_reference(axes: Axes, line: Reference, sheet: Sheet) -> None:
    style = {"color": MUTED, "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}
    words = {"color": MUTED, "fontsize": 7.5 * sheet.scale}
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


def _draw_mark(
    axes: Axes, mark: Mark, chart: Chart, panel: Panel, shades: Mapping[str, str]
) -> None:
    match mark:
        case Line():
            _draw_line(axes, mark, shades[mark.name], chart.sheet)
        case Histogram():
            counts, edges, color = _numbers(mark.counts), _numbers(mark.edges), shades[mark.name]
            axes.stairs(counts, edges, fill=True, alpha=0.28, color=color, label=mark.name)
            axes.stairs(counts, edges, linewidth=1, color=color)
        case Scatter():
            _draw_scatter(axes, mark, chart, panel, shades[mark.name])
        case Heatmap():
            _draw_heatmap(axes, mark, chart.sheet)
        case Bars():
            raise AssertionError("bars are drawn in groups by draw_marks")


def _draw_line(axes: Axes, mark: Line, color: str, sheet: Sheet) -> None:
    x = _numbers(mark.x)
    if mark.low is not None and mark.high is not None:
        low, high = _numbers(mark.low), _numbers(mark.high)
        axes.fill_between(x, low, high, color=color, alpha=0.2 * mark.opacity, linewidth=0)
    axes.plot(
        x,
        _numbers(mark.y),
        _DASHES[mark.style],
        color=color,
        label=mark.name,
        marker="o" if mark.markers else None,
        markersize=4 * sheet.scale,
        alpha=None if mark.opacity == 1 else mark.opacity,
    )


def _draw_scatter(axes: Axes, mark: Scatter, chart: Chart, panel: Panel, color: str) -> None:
    x, y = _numbers(mark.x), _numbers(mark.y)
    is_large = chart.most_points is not None and len(x) > chart.most_points
    bar = chart.color_bar
    if mark.values is not None and bar is not None:
        points = axes.scatter(
            x,
            y,
            s=mark.size,
            alpha=mark.opacity,
            linewidths=0,
            c=_numbers(mark.values),
            cmap=color_map(bar.ramp),
            norm=Normalize(bar.low, bar.high),
            label=mark.name,
            # Above the line that joins them, and whole at the ends of an exact axis.
            zorder=2.5,
            clip_on=not chart.axis("x", panel).whole,
        )
    elif is_large:
        # One marker stamped many times: the same picture in a fraction of the time.
        kept = is_drawable(mark, log_x=chart.axis("x", panel).log, log_y=chart.axis("y", panel).log)
        (points,) = axes.plot(
            x[kept],
            y[kept],
            "o",
            markersize=math.sqrt(mark.size),
            markeredgewidth=0,
            alpha=mark.opacity,
            color=color,
            label=mark.name,
        )
    else:
        points = axes.scatter(
            x, y, s=mark.size, alpha=mark.opacity, linewidths=0, color=color, label=mark.name
        )
    if is_large:
        points.set_rasterized(True)
        points.set_in_layout(False)


def _draw_bars(axes: Axes, mark: Bars, color: str, place: tuple[int, int], sheet: Sheet) -> None:
    i, n = place
    width = 0.75 / n
    places = np.arange(len(mark.categories)) + (i - (n - 1) / 2) * width
    y = _numbers(mark.y)
    axes.bar(places, y, width * 0.92, color=color, label=mark.name)
    if mark.low is not None and mark.high is not None:
        ends = np.stack([y - _numbers(mark.low), _numbers(mark.high) - y])
        axes.errorbar(places, y, ends, fmt="none", ecolor=MUTED, elinewidth=1, capsize=2)
    names = list(mark.categories)
    axes.set_xticks(range(len(names)), names)
    _slant(axes, names, 40 * sheet.panel[0] / PANEL_INCHES[0] / sheet.scale)


def _slant(axes: Axes, names: Sequence[str], n_fitting: float) -> None:
    """Names that do not fit side by side are slanted; a page's panel is about 40 characters."""
    if sum(len(name) + 2 for name in names) > n_fitting:
        for name in axes.get_xticklabels():
            name.set(rotation=30, ha="right")


def _draw_heatmap(axes: Axes, mark: Heatmap, sheet: Sheet) -> None:
    low, high = mark.color_limits
    values = _numbers(mark.values)
    ramp = color_map(mark.ramp)
    image = axes.imshow(
        values, cmap=ramp, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    _set_names(axes, "x", mark.x_names, sheet)
    _set_names(axes, "y", mark.y_names, sheet)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, label=mark.label, shrink=0.9, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    if not mark.has_cell_texts:
        return
    size = 7 * sheet.scale
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axes.text(column, row, "–", ha="center", va="center", color=INK, fontsize=size)
            continue
        red, green, blue, _ = ramp((value - low) / (high - low))
        is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ink = "white" if is_dark else INK
        text = format(value, mark.number_format)
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


def _set_names(axes: Axes, side: Side, names: Sequence[str], sheet: Sheet) -> None:
    places = range(0, len(names), max(1, math.ceil(len(names) / 24)))
    axis = axes.xaxis if side == "x" else axes.yaxis
    shown = [names[i] for i in places]
    axis.set_ticks(list(places), shown)
    if side == "x" and sheet.scale > 1:
        # Names of rows and the bar of colours take their part of the panel.
        _slant(axes, shown, 28 * sheet.panel[0] / PANEL_INCHES[0] / sheet.scale)


def _numbers(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
