"""The residual stream through the layers, drawn from what was measured.

The stream runs from the embedding at the bottom to the unembedding at the top, as wide as its
median norm. From the left flows in what attention adds to it at each block, from the right what the
MLP adds; a branch is as long as its median norm, on the scale of the stream's width. Where a layer
has an SAE, a tap tells how much of the stream it explains. Norms do not add up: a branch may turn
the stream, or take away from it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from scipy.interpolate import PchipInterpolator

from fluoroscope.plots.palettes import LAYER_PALETTE, PALETTE_RAMPS, ramp_color
from fluoroscope.plots.style import CATEGORICAL, INK, MATPLOTLIB_STYLE, MUTED, PAPER, RULE

_RAMP = PALETTE_RAMPS[LAYER_PALETTE]
_ATTENTION, _MLP = CATEGORICAL[0], CATEGORICAL[1]

# In inches, from the left: names of layers, branches, the stream, branches, taps.
_NAMES, _SIDE, _STREAM, _TAPS = 0.85, 1.5, 2.2, 2.75
_BELOW, _ABOVE, _TITLE = 0.65, 0.6, 0.5
_LEAST_HALF = 0.008
"""A stream is never thinner than a hair, though its norm may be."""


@dataclass(frozen=True)
class Tap:
    """An SAE on the stream; a number that was not measured is None."""

    at: int
    """Before block `at`; the number of blocks stands for the stream after the last."""

    explained: float | None = None
    """Share of the variance there that it explains, 1 less the FVU."""

    l0: float | None = None
    """Active latents a token."""

    dead: float | None = None
    """Share of its latents that are dead."""


def residual_stream(
    norms: Float[np.ndarray, " places"],
    attention: Float[np.ndarray, " layers"],
    mlp: Float[np.ndarray, " layers"],
    taps: Sequence[Tap] = (),
    title: str = "",
) -> Figure:
    """`norms[l]` is the median norm before block l, and the last that after the last block.

    `attention` and `mlp` are median norms of what either adds, NaN where it was not measured.
    """
    _check(norms, attention, mlp, taps)
    n = len(attention)
    # A row is never less than a line of words.
    row = float(np.clip(8.4 / n, 0.17, 0.78))
    width = _NAMES + _SIDE + _STREAM + _SIDE + (_TAPS if taps else 0.1)
    height = _BELOW + n * row + _ABOVE + (_TITLE if title else 0.0)
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        plan = _Plan(n, row, norms, _inches(norms, attention, mlp))
        _draw_branches(axes, plan, attention, -1, 0.36, _ATTENTION)
        _draw_branches(axes, plan, mlp, 1, 0.6, _MLP)
        _draw_stream(axes, plan)
        _draw_names(axes, plan, title)
        _draw_scale(axes, plan)
        if taps:
            _draw_taps(axes, plan, taps)
        # One unit is an inch, and 0, 0 the middle of the stream before the first block.
        left = -_NAMES - plan.edge
        axes.set_xlim(left, left + width)
        axes.set_ylim(-_BELOW, height - _BELOW)
    return figure


@dataclass(frozen=True, eq=False)
class _Plan:
    n: int
    row: float
    """Inches of a block."""
    norms: np.ndarray
    inches: float
    """Of a norm of 1."""
    edge: float = _STREAM / 2 + _SIDE

    @property
    def top(self) -> float:
        return self.n * self.row

    def halves(self, y: np.ndarray) -> np.ndarray:
        """Half the width of the stream; between layers it swells no more than was measured."""
        places = np.arange(self.n + 1) * self.row
        widths = PchipInterpolator(places, self.norms * self.inches)(y)
        return np.maximum(widths / 2, _LEAST_HALF)

    def half(self, y: float) -> float:
        return float(self.halves(np.array([y]))[0])

    def color(self, place: float) -> str:
        """Of the stream at a place, 0 to n; the palest end of the ramp is left out."""
        return ramp_color(_RAMP, 0.06 + 0.86 * place / self.n)


def _check(norms: np.ndarray, attention: np.ndarray, mlp: np.ndarray, taps: Sequence[Tap]) -> None:
    n = len(attention)
    if n < 1 or (len(mlp), len(norms)) != (n, n + 1):
        raise ValueError(
            "A stream through n blocks, n at least 1, needs n norms of attention, n of the MLP and "
            f"n + 1 of the stream, got {n}, {len(mlp)} and {len(norms)}."
        )
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise ValueError(f"Norms of the stream are finite and above 0, got {norms.tolist()}.")
    if any((part < 0).any() or np.isinf(part).any() for part in (attention, mlp)):
        raise ValueError("Norms of what is added are 0 or more, or NaN where not measured.")
    places = [tap.at for tap in taps]
    if any(not 0 <= at <= n for at in places) or len(set(places)) < len(places):
        raise ValueError(f"Taps are at places 0 to {n}, one at each, got {places}.")


def _inches(norms: np.ndarray, attention: np.ndarray, mlp: np.ndarray) -> float:
    """Inches for a norm of 1, such that both stream and branches have room."""
    longest = max([0.0, *(float(norm) for norm in (*attention, *mlp) if norm > 0)])
    inches = _STREAM / float(norms.max())
    return min(inches, (_SIDE - 0.4) / longest) if longest else inches


def _draw_stream(axes: Axes, plan: _Plan) -> None:
    y = np.linspace(0, plan.top, 40 * plan.n + 1)
    half = plan.halves(y)
    outline = np.concatenate([np.c_[-half, y], np.c_[half, y][::-1]])
    shape = PathPatch(Path(outline), facecolor="none", linewidth=0)
    axes.add_patch(shape)
    colors = [plan.color(place) for place in np.linspace(0, plan.n, 64)]
    image = axes.imshow(
        np.linspace(0, 1, 256)[:, None],
        cmap=LinearSegmentedColormap.from_list("layers", colors),
        extent=(-float(half.max()), float(half.max()), 0, plan.top),
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
        zorder=3,
    )
    image.set_clip_path(shape)
    tip = float(half[-1])
    corners = [(-tip, plan.top), (tip, plan.top), (0, plan.top + min(0.2, 0.1 + tip / 4))]
    axes.add_patch(Polygon(corners, facecolor=plan.color(plan.n), linewidth=0, zorder=3))
    for i, norm in enumerate(plan.norms):
        at = plan.half(i * plan.row)
        if 0 < i < plan.n:
            style = {"color": PAPER, "linewidth": 0.7, "alpha": 0.6, "zorder": 4}
            axes.plot([-at, at], [i * plan.row] * 2, **style)
        words = _short(float(norm))
        if plan.row > 0.3 and at > 0.06 + 0.035 * len(words):
            ink, above = PAPER if i / plan.n < 0.6 else INK, 0.09 if i < plan.n else 0.05
            _write(axes, 0, i * plan.row + above, words, ha="center", size=7, color=ink)


def _draw_branches(
    axes: Axes, plan: _Plan, norms: np.ndarray, side: int, share: float, color: str
) -> None:
    """What flows in at `share` of each block's height, from the left (-1) or the right (1)."""
    thick = min(0.3 * plan.row, 0.15)
    for i, norm in enumerate(norms):
        if not norm > 0:
            continue
        y, length = (i + share) * plan.row, float(norm) * plan.inches
        axes.add_patch(PathPatch(_branch(plan, side, y, length, thick), color=color, linewidth=0))
        if plan.row > 0.3:
            end = side * (plan.half(y) + length + 0.05 + thick / 3)
            _write(axes, end, y, _short(float(norm)), ha="left" if side > 0 else "right", size=7)


def _branch(plan: _Plan, side: int, y: float, length: float, thick: float) -> Path:
    """A pipe whose upper side bends into the flow; its inner end is hidden by the stream."""
    low, high, bend = (
        y - thick / 2,
        y + thick / 2,
        min(1.2 * thick, length, plan.top - y - thick / 2),
    )
    edge, above = plan.half(y), plan.half(y + thick / 2 + bend)
    end = edge + length
    points = [
        (0.0, low),
        (end - thick / 3, low),
        (end, low),
        (end, y),
        (end, high),
        (end - thick / 3, high),
        (edge + bend, high),
        (edge, high),
        (above, high + bend),
        (0.0, high + bend),
    ]
    curve = Path.CURVE3
    codes = [Path.MOVETO, Path.LINETO, curve, curve, curve, curve, Path.LINETO, curve, curve]
    return Path([(side * x, at) for x, at in points], [*codes, Path.LINETO])


def _draw_names(axes: Axes, plan: _Plan, title: str) -> None:
    for i in range(plan.n):
        y = (i + 0.5) * plan.row
        axes.plot([-plan.edge - 0.09], [y], "o", color=plan.color(i + 0.5), markersize=3.5)
        _write(axes, -plan.edge - 0.2, y, f"Layer {i}", ha="right", size=8)
    heads = plan.top + 0.36
    _write(axes, 0, heads, "unembedding", ha="center", size=8, color=MUTED)
    _write(axes, 0, -0.2, "embedding", ha="center", size=8, color=MUTED)
    side = (_STREAM + _SIDE) / 2
    _write(axes, -side, heads, "attention adds", ha="center", size=8.5, color=_ATTENTION)
    _write(axes, side, heads, "MLP adds", ha="center", size=8.5, color=_MLP)
    if title:
        x = -_NAMES - plan.edge + 0.15
        _write(axes, x, plan.top + _ABOVE + 0.2, title, ha="left", size=11, weight="bold")


def _draw_scale(axes: Axes, plan: _Plan) -> None:
    """A line as long as a round norm."""
    most = 1.2 / plan.inches
    power = 10.0 ** math.floor(math.log10(most))
    norm = power * max(factor for factor in (1, 2, 5) if factor * power <= most)
    x, y = -plan.edge, -0.3
    axes.plot([x, x + norm * plan.inches], [y, y], color=MUTED, linewidth=1.4)
    for end in (x, x + norm * plan.inches):
        axes.plot([end, end], [y - 0.04, y + 0.04], color=MUTED, linewidth=1.4)
    _write(axes, x, y - 0.16, f"norm {norm:g}", ha="left", size=7.5, color=MUTED)


def _draw_taps(axes: Axes, plan: _Plan, taps: Sequence[Tap]) -> None:
    gauge, explained, l0, dead = (plan.edge + x for x in (0.15, 1.5, 2.05, 2.6))
    heads = plan.top + 0.36
    _write(axes, gauge, heads, "SAE explains", ha="left", size=8.5, weight="bold")
    _write(axes, l0, heads, "L0", ha="right", size=8.5, weight="bold")
    _write(axes, dead, heads, "dead", ha="right", size=8.5, weight="bold")
    thick = min(0.09, 0.45 * plan.row)
    for tap in taps:
        y, color = tap.at * plan.row, plan.color(tap.at)
        edge = plan.half(y)
        axes.plot(
            [edge, gauge], [y, y], color=MUTED, linewidth=0.6, alpha=0.6, linestyle=(0, (1, 2))
        )
        ring = {"markeredgecolor": color, "markerfacecolor": PAPER, "markeredgewidth": 1.4}
        axes.plot([edge], [y], "o", markersize=5, zorder=5, **ring)
        share = min(max(tap.explained or 0.0, 0.0), 1.0)
        for length, shade in ((0.9, RULE), (0.9 * share, color)):
            box = Rectangle((gauge, y - thick / 2), length, thick, color=shade, linewidth=0)
            axes.add_patch(box)
        _write(axes, explained, y, _percent(tap.explained, 1), ha="right", size=7.5)
        _write(axes, l0, y, "\u2013" if tap.l0 is None else _short(tap.l0), ha="right", size=7.5)
        _write(axes, dead, y, _percent(tap.dead, 0), ha="right", size=7.5)


def _write(
    axes: Axes,
    x: float,
    y: float,
    words: str,
    *,
    ha: str,
    size: float,
    color: str = INK,
    weight: str = "normal",
) -> None:
    axes.text(
        x, y, words, ha=ha, va="center", fontsize=size, color=color, fontweight=weight, zorder=6
    )


def _percent(share: float | None, digits: int) -> str:
    if share is None:
        return "\u2013"
    # A few dead latents are not none.
    digits = 1 if 0 < share < 0.1 else digits
    return f"{share:.{digits}%}".replace("-", "\u2212")


def _short(number: float) -> str:
    """Three figures, and never an exponent below a million."""
    if number >= 1e6:
        return f"{number:.2e}"
    return f"{number:,.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}"
