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
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.plots.style import Palette, Ramp, colors
from fluoroscope.plots.ticks import whole_ticks

Side = Literal["x", "y"]
Number = float | int


@dataclass(frozen=True)
class Axis:
    label: str = ""
    log: bool = False
    limits: tuple[Number, Number] | None = None
    """Ends of the axis in data units; found from the data where None."""


@dataclass(frozen=True, eq=False)
class Line:
    """A curve; `low` and `high` make a band around it (an interval, say so in the caption)."""

    name: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    style: Literal["solid", "dashed", "dotted"] = "solid"
    markers: bool = False
    color: str | None = None

    def __post_init__(self) -> None:
        _check_lengths(self.name, x=self.x, y=self.y, low=self.low, high=self.high)


@dataclass(frozen=True, eq=False)
class Bars:
    """One bar a category; `low` and `high` are the ends of its error bar."""

    name: str
    categories: Sequence[str]
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    color: str | None = None

    def __post_init__(self) -> None:
        _check_lengths(
            self.name, categories=self.categories, y=self.y, low=self.low, high=self.high
        )


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts between `edges`, one more edge than counts."""

    name: str
    edges: ArrayLike
    counts: ArrayLike
    color: str | None = None

    def __post_init__(self) -> None:
        n_edges, n_counts = len(np.asarray(self.edges)), len(np.asarray(self.counts))
        if n_edges != n_counts + 1:
            raise ValueError(
                f"Histogram {self.name!r} needs one more edge than counts, "
                f"got {n_edges} edges and {n_counts} counts."
            )

    @classmethod
    def of(cls, name: str, values: ArrayLike, edges: ArrayLike) -> "Histogram":
        """Counts `values` between `edges`; what lies outside is not counted."""
        counts, _ = np.histogram(np.asarray(values, float), np.asarray(edges, float))
        return cls(name, edges, counts)


@dataclass(frozen=True, eq=False)
class Scatter:
    name: str
    x: ArrayLike
    y: ArrayLike
    labels: Sequence[str] | None = None
    """What each point is; shown under the pointer."""
    color: str | None = None

    def __post_init__(self) -> None:
        _check_lengths(self.name, x=self.x, y=self.y, labels=self.labels)


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A matrix as colour, first row on top; a diverging ramp is centred on zero."""

    values: ArrayLike
    x_names: Sequence[str]
    y_names: Sequence[str]
    label: str = ""
    """What the colour means."""
    ramp: Ramp = "sequential"
    limits: tuple[Number, Number] | None = None
    show_values: bool | None = None
    """Write each number into its cell; None does so where there is room."""

    def __post_init__(self) -> None:
        shape, names = np.shape(np.asarray(self.values)), (len(self.y_names), len(self.x_names))
        if shape != names:
            raise ValueError(
                f"A heatmap of {names} (y_names, x_names) needs that shape, got {shape}."
            )

    @property
    def color_limits(self) -> tuple[Number, Number]:
        if self.limits is not None:
            return self.limits
        values = np.asarray(self.values, float)
        finite = values[np.isfinite(values)]
        if finite.size == 0:
            return (0.0, 1.0)
        if self.ramp == "diverging":
            largest = float(np.abs(finite).max()) or 1.0
            return (-largest, largest)
        low, high = float(finite.min()), float(finite.max())
        return (low, high if high > low else low + 1.0)

    @property
    def has_cell_texts(self) -> bool:
        has_room = len(self.x_names) <= 14 and len(self.y_names) <= 24
        return has_room if self.show_values is None else self.show_values


Mark = Line | Bars | Histogram | Scatter | Heatmap


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
            if not isinstance(mark, Heatmap):
                chosen.setdefault(mark.name, mark.color)
        spare = iter(colors(self.palette, len(chosen)))
        return {name: color or next(spare) for name, color in chosen.items()}

    @property
    def needs_legend(self) -> bool:
        """False for one series, and where each panel has one of its own, named by its title."""
        names = [_series_names(panel) for panel in self.panels]
        if len(self.series_colors) < 2:
            return False
        is_one_each = len(self.panels) > 1 and all(len(own) == 1 for own in names)
        return not (is_one_each and len(self.series_colors) == len(self.panels))

    def limits(self, axis: Side, panel: Panel) -> tuple[Number, Number] | None:
        """Ends of a numeric axis of `panel`, alike in all panels that share it."""
        declared, shared = (self.x, self.share_x) if axis == "x" else (self.y, self.share_y)
        if declared.limits is not None:
            return declared.limits
        panels = self.panels if shared else [panel]
        values = np.concatenate([_numbers(one, axis) for one in panels])
        if declared.log:
            values = values[values > 0]
        if values.size == 0:
            return None
        marks = [mark for one in panels for mark in one.marks]
        # Bars and histograms stand on zero: their axis must not be cut below.
        stands = axis == "y" and any(isinstance(mark, Bars | Histogram) for mark in marks)
        return _padded(float(values.min()), float(values.max()), declared.log, stands, axis)

    def whole_ticks(self, axis: Side) -> list[int] | None:
        """Ticks for an axis that only has whole numbers, such as layers."""
        declared = self.x if axis == "x" else self.y
        if declared.log or axis == "y":
            return None
        lines = [mark for mark in self._marks() if isinstance(mark, Line)]
        if not lines:
            return None
        return whole_ticks(np.concatenate([np.asarray(mark.x, float) for mark in lines]))

    def _marks(self) -> list[Mark]:
        return [mark for panel in self.panels for mark in panel.marks]


def _axis(axis: Axis | str) -> Axis:
    return Axis(axis) if isinstance(axis, str) else axis


def _series_names(panel: Panel) -> set[str]:
    return {mark.name for mark in panel.marks if not isinstance(mark, Heatmap)}


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


def _check_lengths(name: str, **parts: ArrayLike | Sequence[str] | None) -> None:
    lengths = {key: len(np.asarray(part)) for key, part in parts.items() if part is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The parts of {name!r} must be equally long, got {lengths}.")
