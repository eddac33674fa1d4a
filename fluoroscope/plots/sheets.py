"""How large a figure is on paper, and its type; and how many panels stand side by side.

`PAGE_SHEET` is the report's own and a paper's column. `NOTE_SHEET` is for grids of a panel a
layer that are read from across a table: panels of 10 x 8 inches with type of 18 points.
"""

import math
from dataclasses import dataclass
from typing import Any

from fluoroscope.plots.style import MATPLOTLIB_STYLE, PANEL_INCHES, PNG_DPI, SINGLE_INCHES

TITLE = 1.4
"""The figure's title in units of the type."""

_PANEL_TITLE = 1.2

_MOST_OBLONG = 2.5

_TYPE = (
    "font.size",
    "axes.labelsize",
    "axes.titlepad",
    "xtick.labelsize",
    "ytick.labelsize",
    "legend.fontsize",
)
_STROKES = ("axes.linewidth", "grid.linewidth", "xtick.major.size", "lines.linewidth")


@dataclass(frozen=True)
class Sheet:
    panel: tuple[float, float]
    """Width and height in inches of one panel of many."""
    single: tuple[float, float]
    """Width and height in inches of a chart of one panel."""
    font_size: float = MATPLOTLIB_STYLE["font.size"]
    """Points."""
    pixels_wide: int | None = None
    """Of a large png; None for the same number of pixels an inch, whatever its size."""

    @property
    def scale(self) -> float:
        """Of everything that is measured in points; 1 on the page."""
        return self.font_size / MATPLOTLIB_STYLE["font.size"]

    @property
    def style(self) -> dict[Any, Any]:  # Any: as matplotlib types its settings.
        if self.scale == 1:
            return MATPLOTLIB_STYLE
        # Strokes grow less than type: a curve of a thousand positions must not become a bar.
        larger = {key: MATPLOTLIB_STYLE[key] * self.scale for key in _TYPE}
        bolder = {key: MATPLOTLIB_STYLE[key] * math.sqrt(self.scale) for key in _STROKES}
        titles = {
            "axes.titlesize": _PANEL_TITLE * self.font_size,
            "figure.titlesize": TITLE * self.font_size,
            "figure.constrained_layout.h_pad": 0.15,
            "figure.constrained_layout.w_pad": 0.15,
        }
        return MATPLOTLIB_STYLE | larger | bolder | titles

    def dpi(self, width: float) -> float:
        """Pixels an inch of a png that is `width` inches wide."""
        if self.pixels_wide is None:
            return PNG_DPI
        return min(max(self.pixels_wide / width, 50), 150)


PAGE_SHEET = Sheet(PANEL_INCHES, SINGLE_INCHES)

NOTE_SHEET = Sheet((10, 8), (14, 9), font_size=18, pixels_wide=3000)
"""Twelve layers are a png of 3,000 pixels: 3 rows of 4 panels on 40 x 24 inches."""


def grid_columns(n: int) -> int:
    """How many of `n` panels stand side by side: 4 of 12, 3 of 6 or 5, 6 of 24.

    The grid that leaves the fewest places empty among those that are wide rather than high, but
    not beyond 2.5 to 1; up to three panels stand in one row.
    """
    if n <= 3:
        return max(n, 1)
    fitting = [
        columns
        for columns in range(math.ceil(math.sqrt(n)), n + 1)
        if columns <= _MOST_OBLONG * math.ceil(n / columns)
    ]
    return min(fitting, key=lambda columns: (-n % columns, columns))
