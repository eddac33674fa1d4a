"""What a figure shows, said once, and drawn on a screen or on paper by a renderer.

A `Chart` is one or more `Panel`s that share their axes; a panel holds marks (lines with
bands, bars with errors, histograms, points, a heatmap) and reference lines. A series keeps
its colour by its name in every panel. Nothing here draws: `plotly_renderer` makes the
interactive form and `matplotlib_renderer` the png and pdf.

    Chart.single(Line("train", steps, loss, low, high), x="samples", y="fvu")
    Chart.grid({"layer 0": [line], "layer 1": [other]}, x="samples", y=Axis("fvu", log=True))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.plots.marks import Bars, Heatmap, Histogram, Line, Mark, Number, Scatter
from fluoroscope.plots.sheets import PAGE_SHEET, Sheet
from fluoroscope.plots.style import Palette, Ramp, colors
from fluoroscope.plots.ticks import round_ticks, whole_ticks

__all__ = [
    "Axis",
    "Bars",
    "Chart",
    "ColorBar",
    "Heatmap",
    "Histogram",
    "Line",
    "Mark",
    "Number",
    "Panel",
    "Reference",
    "Scatter",
    "Side",
]

Side = Literal["x", "y"]


@dataclass(frozen=True)
class Axis:
    label: str = ""
    log: bool = False
    limits: tuple[Number, Number] | None = None
    """Ends of the axis in data units; found from the data where None."""
    whole: bool = False
    """It has whole numbers such as positions, so its ticks are round ones, from zero."""
    names: Sequence[str] | None = None
    """What the places 0, 1, ... are called, such as layers that were picked."""


@dataclass(frozen=True)
class Reference:
    """A thin line across the panel: a gate, a baseline, chance."""

    value: Number
    label: str = ""
    axis: Side = "y"


@dataclass(frozen=True, eq=False)
class Panel:
    marks: Sequence[Mark]
    title: str = ""
    references: Sequence[Reference] = ()
    note: str = ""
    """Words beside its title, or in its middle where it has no marks: "no active latent"."""
    x: Axis | None = None
    """An axis of its own, which it shares with no other panel."""
    y: Axis | None = None


@dataclass(frozen=True)
class ColorBar:
    """What the colours of points mean, for all panels at once."""

    label: str
    ramp: Ramp
    low: float
    high: float

    @property
    def ticks(self) -> list[float]:
        return round_ticks(self.low, self.high, 14)


@dataclass(frozen=True, eq=False)
class Chart:
    panels: Sequence[Panel]
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    columns: int = 3
    """At most this many panels side by side."""
    palette: Palette = "categorical"
    share_x: bool = True
    share_y: bool = True
    title: str = ""
    """Of the whole figure."""
    sheet: Sheet = PAGE_SHEET
    legend: bool | None = None
    """Whether series are named beside the panels; None does so where titles do not."""
    most_points: int | None = None
    """Points of a series that the screen shows, and twice as many a panel; None for all. A pdf
    holds a series of more points as an image."""

    @classmethod
    def single(
        cls,
        *marks: Mark,
        x: Axis | str = "",
        y: Axis | str = "",
        references: Sequence[Reference] = (),
        palette: Palette = "categorical",
    ) -> "Chart":
        """A chart of one panel."""
        return cls([Panel(marks, references=references)], _axis(x), _axis(y), palette=palette)

    @classmethod
    def grid(
        cls,
        panels: Mapping[str, Sequence[Mark]],
        x: Axis | str = "",
        y: Axis | str = "",
        references: Sequence[Reference] = (),
        columns: int = 3,
        palette: Palette = "categorical",
        share_x: bool = True,
        share_y: bool = True,
    ) -> "Chart":
        """Small multiples: one panel for each title, all with the same references."""
        made = [Panel(marks, title, references) for title, marks in panels.items()]
        return cls(made, _axis(x), _axis(y), columns, palette, share_x, share_y)

    @property
    def series_colors(self) -> dict[str, str]:
        """Colour of each series by name, in the order in which names first appear."""
        chosen: dict[str, str | None] = {}
        for mark in self._marks():
            match mark:
                case Heatmap():
                    continue
                case Scatter():
                    chosen.setdefault(mark.name, mark.legend_color)
                case _:
                    chosen.setdefault(mark.name, mark.color)
        spare = iter(colors(self.palette, len(chosen)))
        return {name: color or next(spare) for name, color in chosen.items()}

    @property
    def needs_legend(self) -> bool:
        """False for one series, and where each panel has one of its own, named by its title."""
        if self.legend is not None:
            return self.legend and bool(self.series_colors)
        names = [_series_names(panel) for panel in self.panels]
        if len(self.series_colors) < 2:
            return False
        is_one_each = len(self.panels) > 1 and all(len(own) == 1 for own in names)
        return not (is_one_each and len(self.series_colors) == len(self.panels))

    @cached_property
    def color_bar(self) -> ColorBar | None:
        """The one bar of all points that are coloured by numbers, from the least to the most."""
        points = [
            mark for mark in self._marks() if isinstance(mark, Scatter) and mark.values is not None
        ]
        kinds: set[tuple[str, Ramp]] = {(mark.value_label, mark.ramp) for mark in points}
        if len(kinds) > 1:
            raise ValueError(f"A chart has one colour bar, got points by {sorted(kinds)}.")
        values = np.concatenate([np.empty(0), *(np.asarray(mark.values, float) for mark in points)])
        values = values[np.isfinite(values)]
        if values.size == 0:
            return None
        ((label, ramp),) = kinds
        low, high = float(values.min()), float(values.max())
        return ColorBar(label, ramp, low, high if high > low else low + 1.0)

    def axis(self, side: Side, panel: Panel) -> Axis:
        """The panel's own axis, or the chart's."""
        own, shared = (panel.x, self.x) if side == "x" else (panel.y, self.y)
        return shared if own is None else own

    def limits(self, axis: Side, panel: Panel) -> tuple[Number, Number] | None:
        """Ends of a numeric axis of `panel`, alike in all panels that share it."""
        declared = self.axis(axis, panel)
        if declared.limits is not None:
            return declared.limits
        is_own = (panel.x if axis == "x" else panel.y) is not None
        is_shared = self.share_x if axis == "x" else self.share_y
        if is_own or not is_shared:
            return _limits([panel], declared, axis)
        return self._shared_x_limits if axis == "x" else self._shared_y_limits

    def shares(self, axis: Side, panel: Panel, values: ArrayLike) -> np.ndarray:
        """How far along the axis each value lies, 0 at its low end and 1 at its high end."""
        ends = np.asarray(self.limits(axis, panel) or (0.0, 1.0), float)
        places = np.asarray(values, float)
        if self.axis(axis, panel).log:
            ends, places = np.log10(ends), np.log10(places)
        return (places - ends[0]) / (ends[1] - ends[0])

    def ticks(self, axis: Side, panel: Panel) -> Sequence[Number] | None:
        """Places of the ticks of an axis of whole numbers; None leaves them to the renderer."""
        declared = self.axis(axis, panel)
        if declared.names is not None:
            step = max(1, -(-len(declared.names) // 24))
            return range(0, len(declared.names), step)
        limits = self.limits(axis, panel)
        if declared.whole and limits is not None:
            return round_ticks(limits[0], limits[1], 8)
        return self.whole_ticks(axis)

    def whole_ticks(self, axis: Side) -> list[int] | None:
        """Ticks for an axis that only has whole numbers, such as layers."""
        declared = self.x if axis == "x" else self.y
        if declared.log or axis == "y":
            return None
        lines = [mark for mark in self._marks() if isinstance(mark, Line)]
        if not lines:
            return None
        return whole_ticks(np.concatenate([np.asarray(mark.x, float) for mark in lines]))

    @cached_property
    def _shared_x_limits(self) -> tuple[Number, Number] | None:
        return _limits([panel for panel in self.panels if panel.x is None], self.x, "x")

    @cached_property
    def _shared_y_limits(self) -> tuple[Number, Number] | None:
        return _limits([panel for panel in self.panels if panel.y is None], self.y, "y")

    def _marks(self) -> list[Mark]:
        return [mark for panel in self.panels for mark in panel.marks]


def _axis(axis: Axis | str) -> Axis:
    return Axis(axis) if isinstance(axis, str) else axis


def _series_names(panel: Panel) -> set[str]:
    return {mark.name for mark in panel.marks if not isinstance(mark, Heatmap)}


def _limits(panels: Sequence[Panel], declared: Axis, axis: Side) -> tuple[Number, Number] | None:
    values = np.concatenate([np.empty(0), *(_numbers(one, axis) for one in panels)])
    if declared.log:
        values = values[values > 0]
    if values.size == 0:
        return None
    marks = [mark for one in panels for mark in one.marks]
    # Bars and histograms stand on zero: their axis must not be cut below.
    stands = axis == "y" and any(isinstance(mark, Bars | Histogram) for mark in marks)
    return _padded(float(values.min()), float(values.max()), declared.log, stands, axis)


def _numbers(panel: Panel, axis: Side) -> np.ndarray:
    parts: list[ArrayLike] = [_extent(mark, axis) for mark in panel.marks]
    parts += [[line.value] for line in panel.references if line.axis == axis]
    values = np.concatenate([np.empty(0), *(np.asarray(part, float).ravel() for part in parts)])
    return values[np.isfinite(values)]


def _extent(mark: Mark, axis: Side) -> ArrayLike:
    match mark:
        case Heatmap():
            return []
        case Histogram():
            return mark.edges if axis == "x" else mark.counts
        case Scatter():
            return mark.x if axis == "x" else mark.y
        case Line() | Bars() if axis == "y":
            ends = [part for part in (mark.y, mark.low, mark.high) if part is not None]
            return np.concatenate([np.asarray(part, float) for part in ends])
        case Line():
            return mark.x
        case Bars():
            return []


def _padded(low: float, high: float, log: bool, stands: bool, axis: Side) -> tuple[float, float]:
    share = 0.05 if axis == "y" else 0.03
    if log:
        ratio = (high / low) ** share if high > low else 1.5
        return (low / ratio, high * ratio)
    space = share * (high - low) or 0.05 * abs(high) or 1.0
    if stands and low >= 0:
        return (0.0, high + space)
    return (low - space, high + space)
