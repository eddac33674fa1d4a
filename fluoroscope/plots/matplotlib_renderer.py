"""Charts for paper: png and pdf of the same bytes for the same chart, with no date inside."""

import math
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, NullLocator

from fluoroscope.core.storage import atomic_path
from fluoroscope.plots.chart import Bars, Chart, ColorBar, Heatmap, Panel, Scatter, Side
from fluoroscope.plots.matplotlib_marks import (
    color_map,
    draw_annotations,
    draw_marks,
    draw_note,
    draw_reference,
)
from fluoroscope.plots.sheets import TITLE
from fluoroscope.plots.ticks import log_text, log_ticks


def matplotlib_figure(chart: Chart) -> Figure:
    """The whole chart, all panels and one legend; no global state of matplotlib is touched."""
    with matplotlib.rc_context(chart.sheet.style):
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
            _set_labels(axes, chart, i, columns)
        if chart.title:
            _draw_title(figure, chart)
        if chart.color_bar is not None:
            _draw_color_bar(figure, list(places[: len(chart.panels)]), chart.color_bar)
        if chart.needs_legend:
            _draw_legend(figure, chart, places)
        return figure


def save_chart(chart: Chart, *paths: Path) -> None:
    """Writes each of `paths`, a .png or a .pdf; drawn and laid out once for all of them."""
    kinds = [path.suffix.removeprefix(".") for path in paths]
    for kind, path in zip(kinds, paths, strict=True):
        if kind not in ("png", "pdf"):
            raise ValueError(f"A chart is saved as .png or .pdf, got {path.name!r}.")
    figure = matplotlib_figure(chart)
    dpi = chart.sheet.dpi(figure.get_figwidth())
    with matplotlib.rc_context(chart.sheet.style):
        for kind, path in zip(kinds, paths, strict=True):
            dateless = (
                {"CreationDate": None, "ModDate": None} if kind == "pdf" else {"Software": None}
            )
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=dpi, metadata=dateless)
            # What is laid out stays; doing it again takes as long as drawing.
            figure.set_layout_engine("none")


def _size(chart: Chart, columns: int, rows: int) -> tuple[float, float]:
    sheet = chart.sheet
    if len(chart.panels) > 1:
        width, height = sheet.panel
        return (max(width * columns, sheet.single[0]), height * rows + 0.3 * (sheet.scale == 1))
    width, height = sheet.single
    maps = [mark for mark in chart.panels[0].marks if isinstance(mark, Heatmap)]
    rows_of_map = max((len(mark.y_names) for mark in maps), default=0)
    return (width, max(height, (0.22 * rows_of_map + 1.0) * sheet.scale))


def _draw_panel(axes: Axes, chart: Chart, panel: Panel, shades: dict[str, str]) -> None:
    draw_marks(axes, chart, panel, shades)
    axes.set_title(panel.title)
    if panel.note:
        draw_note(axes, panel, chart.sheet)
    if any(isinstance(mark, Heatmap) for mark in panel.marks):
        return
    has_bars = any(isinstance(mark, Bars) for mark in panel.marks)
    if not has_bars:
        _set_axis(axes, chart, panel, "x")
    _set_axis(axes, chart, panel, "y")
    axes.grid(visible=not has_bars, axis="x")
    for line in panel.references:
        draw_reference(axes, line, chart.sheet)
    for mark in panel.marks:
        if isinstance(mark, Scatter) and mark.annotations:
            draw_annotations(axes, chart, panel, mark)


def _set_labels(axes: Axes, chart: Chart, i: int, columns: int) -> None:
    """A shared axis is named at the edge of the grid, a panel's own beside the panel."""
    panel = chart.panels[i]
    is_last_row = i + columns >= len(chart.panels)
    axes.set_xlabel(chart.axis("x", panel).label if is_last_row or panel.x else "")
    axes.set_ylabel(chart.axis("y", panel).label if i % columns == 0 or panel.y else "")


def _set_axis(axes: Axes, chart: Chart, panel: Panel, side: Side) -> None:
    declared = chart.axis(side, panel)
    axis = axes.xaxis if side == "x" else axes.yaxis
    limits = chart.limits(side, panel)
    if limits is None:
        if panel.note:
            axis.set_ticks([])
        return
    if declared.log:
        ticks = log_ticks(*limits)
        axes.set(**{f"{side}scale": "log", f"{side}lim": limits})
        axis.set_ticks(ticks, [log_text(tick) for tick in ticks])
        axis.set_minor_locator(NullLocator())
        return
    axes.set(**{f"{side}lim": limits})
    places = chart.ticks(side, panel)
    if places is not None and declared.names is not None:
        axis.set_ticks(places, [declared.names[int(place)] for place in places])
    elif places is not None:
        axis.set_ticks(places)
    elif max(abs(end) for end in limits) >= 1e4:
        axis.set_major_formatter(EngFormatter(sep=""))


def _draw_title(figure: Figure, chart: Chart) -> None:
    size = TITLE * chart.sheet.font_size
    n_fitting = figure.get_figwidth() * 72 / (0.68 * size)
    lines = textwrap.fill(chart.title, max(int(n_fitting), 10))
    figure.suptitle(lines, fontweight="bold", fontsize=size)


def _draw_color_bar(figure: Figure, places: list[Axes], bar: ColorBar) -> None:
    """One for all panels, on the right."""
    colors = ScalarMappable(Normalize(bar.low, bar.high), color_map(bar.ramp))
    drawn = figure.colorbar(
        colors, ax=places, label=bar.label, ticks=bar.ticks, aspect=60, pad=0.01, shrink=0.9
    )
    drawn.outline.set_visible(False)


def _draw_legend(figure: Figure, chart: Chart, places: np.ndarray) -> None:
    handles: dict[str, Artist] = {}
    for axes in places:
        if axes.figure is None:
            continue
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    # A title stands above the panels, so that their legend goes below them.
    place = "outside lower center" if chart.title else "outside upper left"
    columns = min(chart.columns, len(chart.panels))
    in_a_row = max(6, 4 * columns) if chart.sheet.scale > 1 else 6
    keys = figure.legend(
        list(handles.values()), list(handles), loc=place, ncols=min(len(handles), in_a_row)
    )
    if chart.sheet.scale > 1:
        for handle in keys.legend_handles:
            _enlarge(handle, chart.sheet.font_size / 2)


def _enlarge(handle: Artist | None, width: float) -> None:
    """A point of a cloud of thousands is too small and too faint to name a colour."""
    if isinstance(handle, PathCollection):
        handle.set(sizes=[width**2], alpha=1.0)
    elif isinstance(handle, Line2D) and handle.get_linestyle() == "None":
        handle.set(markersize=width, alpha=1.0)
