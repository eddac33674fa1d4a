"""What the figures of the anatomy study have in common: one panel a layer, on the note's sheet.

Arrays come layer by layer: one array of two axes, or a list where dictionaries differ in size.
Layers are called as their panels are titled, `Layer 0`, ... (`layer_names`).
"""

from collections.abc import Sequence, Sized
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Real

from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Line, Mark
from fluoroscope.plots.palettes import LAYER_PALETTE, palette_colors
from fluoroscope.plots.sheets import NOTE_SHEET, grid_columns

PerLayer = Sequence[Real[np.ndarray, " _"]] | Real[np.ndarray, "_ _"]
"""A number for each latent or position, layer by layer."""

NO_LATENT = "no active latent"
NO_VALUE = "nothing was measured"

MOST_POINTS = 2000
"""Points of a series that the report's page shows; a png shows all."""


class Estimates(NamedTuple):
    """A number a layer, with the ends of its interval."""

    value: Real[np.ndarray, " layers"]
    low: Real[np.ndarray, " layers"] | None = None
    high: Real[np.ndarray, " layers"] | None = None


def layer_names(layers: Sequence[int]) -> list[str]:
    return [f"Layer {layer}" for layer in layers]


def layer_colors(names: Sequence[str]) -> dict[str, str]:
    """A colour a layer, alike in all figures of the same layers."""
    return dict(zip(names, palette_colors(LAYER_PALETTE, len(names)), strict=True))


def layer_axis(names: Sequence[str]) -> Axis:
    """An axis with a place for each layer."""
    edge = 0.5 if len(names) == 1 else 0.1
    short = [name.removeprefix("Layer ") for name in names]
    return Axis("layer", limits=(-edge, len(names) - 1 + edge), names=short)


def layer_line(
    name: str,
    estimates: Estimates,
    color: str | None = None,
    style: Literal["solid", "dashed"] = "solid",
) -> Line:
    """A value a layer with its band. One layer alone has a stretch, as a band needs a width."""
    value, low, high = estimates
    x = np.arange(len(value))
    if len(x) > 1:
        markers = style == "solid"
        return Line(name, x, value, low, high, style=style, markers=markers, color=color)
    low, high = (None if end is None else np.repeat(end, 2) for end in (low, high))
    return Line(name, [-0.2, 0.2], np.repeat(value, 2), low, high, style=style, color=color)


def counting_axis(label: str, n: int) -> Axis:
    """From exactly 0 to `n` - 1, as positions in a context and latents of a dictionary."""
    return Axis(label, limits=(0, n - 1) if n > 1 else (-0.5, 0.5), whole=True)


def layer_grid(
    panels: Sequence[Panel],
    title: str,
    x: Axis,
    y: Axis,
    *,
    share_x: bool = True,
    share_y: bool = True,
    legend: bool | None = None,
) -> Chart:
    """A panel a layer in the grid of the note: 3 x 4 for twelve."""
    return Chart(
        panels,
        x,
        y,
        columns=grid_columns(len(panels)),
        share_x=share_x,
        share_y=share_y,
        title=title,
        sheet=NOTE_SHEET,
        legend=legend,
        most_points=MOST_POINTS,
    )


def one_panel(panel: Panel, title: str, x: Axis, y: Axis, *, legend: bool | None = None) -> Chart:
    """All layers in one pair of axes."""
    return layer_grid([panel], title, x, y, legend=legend)


def titled_panel(
    title: str, marks: Sequence[Mark], note: str = "", absent: str = NO_LATENT
) -> Panel:
    """The marks, and in a corner the note; where there is no mark, the panel says `absent`."""
    return Panel(marks, title, note=note) if marks else Panel((), title, note=absent)


def point_size(n_points: int) -> float:
    """Area in square points of one of `n_points`: small where they are many."""
    return float(np.clip(24_000 / max(n_points, 1), 4, 36))


def dead_note(n_active: int, n_latents: int) -> str:
    """How many latents have no point, if any."""
    n_dead = n_latents - n_active
    return f"{n_dead:,} of {n_latents:,} latents never active" if n_dead else ""


def measured(means: PerLayer) -> list[Real[np.ndarray, " _"]]:
    """NaN for zeros: a mean of non-zero activations is 0 only where there was none."""
    return [np.where(np.asarray(one) == 0, np.nan, one) for one in means]


def drawable(
    *coordinates: Real[np.ndarray, " _"], positive: bool = False
) -> Real[np.ndarray, " kept"]:
    """Indices at which all coordinates are numbers, and above zero if an axis is logarithmic."""
    numbers = np.stack([np.asarray(one, np.float64) for one in coordinates])
    kept = np.isfinite(numbers).all(axis=0)
    return np.flatnonzero(kept & (numbers > 0).all(axis=0) if positive else kept)


def check_layers(names: Sequence[str], **parts: Sized) -> None:
    """Every part must have one array for each name."""
    if not names:
        raise ValueError("A figure needs at least one layer.")
    for key, part in parts.items():
        if len(part) != len(names):
            raise ValueError(f"{key} must have {len(names)} layers as names, got {len(part)}.")


def context_of(part: PerLayer) -> int:
    """Number of positions; every layer must have as many."""
    lengths = {len(one) for one in part}
    if len(lengths) != 1:
        raise ValueError(f"All layers must have the same positions, got {sorted(lengths)}.")
    return lengths.pop()
