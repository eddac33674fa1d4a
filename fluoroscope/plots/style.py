"""How every figure looks: palettes that colour-blind readers can tell apart, sizes, type.

Categorical colours are Paul Tol's "bright" scheme, reordered and deepened so that each stands
out on white paper and on a dark screen alike. Ordered things (layers, checkpoints) take
their colours from a sequential ramp, so that the order can be seen without the legend.
"""

from collections.abc import Mapping
from typing import Any, Literal

from fluoroscope.plots.palettes import PALETTE_RAMPS, PaletteRamp, channels, ramp_color

Palette = Literal["categorical", "ordered"]
"""`categorical` for kinds, `ordered` for steps of one quantity such as layers."""

Ramp = Literal["sequential", "diverging"] | PaletteRamp
"""`sequential` from nothing to much, `diverging` around zero, or one of `palettes` by name."""

CATEGORICAL = (
    "#3a7cc3",
    "#e8743b",
    "#2a9d78",
    "#b0509b",
    "#c9a227",
    "#4bb4d8",
    "#d6456a",
    "#8a8f98",
)

# From green over blue to plum, each step darker, and none so dark that a dark page hides it.
ORDERED = ("#63cfa8", "#3fb3ad", "#3d95c2", "#5f78c9", "#8a5fbf", "#a94a93")

SEQUENTIAL = (
    "#f2f6f4",
    "#c6e3da",
    "#8fcbc0",
    "#55aeac",
    "#2f8a9b",
    "#2a6687",
    "#2b426b",
    "#1f2345",
)
DIVERGING = ("#2a5fa5", "#6f9bd1", "#bdd0e8", "#f4f3f1", "#f1c4ae", "#e08a63", "#b8482c")
DIVERGING_IN_THE_DARK = (
    "#8fbcf0",
    "#4f86cb",
    "#2a4a75",
    "#1d262a",
    "#6d3a2a",
    "#c8653c",
    "#ffa377",
)

RAMPS: Mapping[Ramp, tuple[str, ...]] = {
    "sequential": SEQUENTIAL,
    "diverging": DIVERGING,
    **PALETTE_RAMPS,
}

RAMPS_IN_THE_DARK: Mapping[Ramp, tuple[str, ...]] = {
    "sequential": SEQUENTIAL[::-1],
    "diverging": DIVERGING_IN_THE_DARK,
    **PALETTE_RAMPS,
}
"""Ramps for a dark page: what means nothing is as dark as the page."""

INK, MUTED, RULE, PAPER = "#1c2327", "#66727a", "#dde2e4", "#ffffff"

PANEL_INCHES = (3.4, 2.5)
"""Width and height of one panel of a small multiple on paper."""

SINGLE_INCHES = (6.2, 3.4)
"""Width and height of a chart of one panel on paper."""

PNG_DPI = 200

MATPLOTLIB_STYLE: dict[Any, Any] = {  # Any: as matplotlib types its settings.
    # The one typeface that comes with matplotlib: the same bytes on every machine.
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "mathtext.fontset": "dejavusans",
}


def colors(palette: Palette, n: int) -> list[str]:
    """`n` colours as #rrggbb; categorical ones repeat after eight."""
    if palette == "categorical":
        return [CATEGORICAL[i % len(CATEGORICAL)] for i in range(n)]
    return [ramp_color(ORDERED, i / max(n - 1, 1)) for i in range(n)]


def translucent(color: str, opacity: float) -> str:
    """`#rrggbb` as a CSS colour with an opacity."""
    red, green, blue = channels(color)
    return f"rgba({red},{green},{blue},{opacity:g})"
