"""The marks of a panel: lines with bands, bars with errors, histograms, points, a heatmap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.plots.palettes import ramp_color
from fluoroscope.plots.style import RAMPS, Ramp

Number = float | int


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
    opacity: float = 1.0

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
    """Points; those with `values` are coloured along `ramp`, and a bar says what that means."""

    name: str
    x: ArrayLike
    y: ArrayLike
    labels: Sequence[str] | None = None
    """What each point is; shown under the pointer."""
    color: str | None = None
    values: ArrayLike | None = None
    """A number a point, such as its position."""
    ramp: Ramp = "sequential"
    value_label: str = ""
    """What `values` are."""
    size: float = 14.0
    """Area of a point in square points."""
    opacity: float = 0.7
    annotations: Mapping[int, str] = field(default_factory=dict)
    """Text written at a point, by its index in `x`."""

    def __post_init__(self) -> None:
        _check_lengths(self.name, x=self.x, y=self.y, labels=self.labels, values=self.values)
        n = len(np.asarray(self.x))
        outside = [index for index in self.annotations if not 0 <= index < n]
        if outside:
            raise ValueError(
                f"Annotations of {self.name!r} must be at points 0 to {n - 1}, got {outside[0]}."
            )

    @property
    def legend_color(self) -> str | None:
        """What stands for all points: `color`, or the middle of the ramp of their values."""
        if self.color is not None or self.values is None:
            return self.color
        return ramp_color(RAMPS[self.ramp], 0.5)


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A matrix as colour, first row on top; a diverging ramp is centred on `center`, or zero."""

    values: ArrayLike
    x_names: Sequence[str]
    y_names: Sequence[str]
    label: str = ""
    """What the colour means."""
    ramp: Ramp = "sequential"
    limits: tuple[Number, Number] | None = None
    show_values: bool | None = None
    """Write each number into its cell; None does so where there is room."""
    center: Number | None = None
    """The value that has the middle colour; without it a ramp goes from least to most."""
    number_format: str = ".2g"
    """Of the numbers in the cells."""

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
        if self.center is not None or self.ramp == "diverging":
            center = self.center or 0.0
            furthest = float(np.abs(finite - center).max()) or 1.0
            return (center - furthest, center + furthest)
        low, high = float(finite.min()), float(finite.max())
        return (low, high if high > low else low + 1.0)

    @property
    def has_cell_texts(self) -> bool:
        has_room = len(self.x_names) <= 14 and len(self.y_names) <= 24
        return has_room if self.show_values is None else self.show_values


Mark = Line | Bars | Histogram | Scatter | Heatmap


def _check_lengths(name: str, **parts: ArrayLike | Sequence[str] | None) -> None:
    lengths = {key: len(np.asarray(part)) for key, part in parts.items() if part is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The parts of {name!r} must be equally long, got {lengths}.")
