"""What SAEs and ablations cost at each position (F13 to F15)."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real

from fluoroscope.plots.anatomy.layers import (
    NO_VALUE,
    PerLayer,
    check_layers,
    context_of,
    counting_axis,
    drawable,
    layer_grid,
    titled_panel,
)
from fluoroscope.plots.anatomy.positions import POSITION, position_points
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Line, Mark
from fluoroscope.plots.palettes import PLAIN_GREY

Bands = Mapping[str, tuple[PerLayer, PerLayer]]
"""Low and high ends by the name of what they are around."""

_CE = "cross-entropy (nats a token)"


def sae_losses_by_position(
    names: Sequence[str],
    losses: Mapping[str, PerLayer],
    *,
    bands: Bands | None = None,
    first_position: int = 0,
) -> Chart:
    """F13: each of the SAE's losses (y, log) at each position (x), a panel a layer.

    `losses` are such as `{"L1": ..., "L2": ..., "combined": ...}`.
    """
    check_layers(names, **losses)
    context = context_of([one for part in losses.values() for one in part])
    panels = []
    for i, name in enumerate(names):
        own = {loss: part[i] for loss, part in losses.items()}
        ends = {loss: (low[i], high[i]) for loss, (low, high) in (bands or {}).items()}
        panels.append(titled_panel(name, _curves(own, ends, first_position), absent=NO_VALUE))
    return layer_grid(
        panels,
        "SAE losses at each position",
        counting_axis(POSITION, context),
        Axis("loss", log=True),
        legend=any(panel.marks for panel in panels),
    )


def ce_by_position(
    names: Sequence[str],
    clean: Real[np.ndarray, " positions"],
    spliced: PerLayer,
    *,
    first_position: int = 0,
) -> Chart:
    """F14: cross-entropy of the next token (y) at each position (x), a panel a layer.

    Points: with the layer's reconstruction in place; grey line: the clean model, alike in all.
    """
    check_layers(names, spliced=spliced)
    panels = [
        _against_clean(name, clean, values, "with the reconstruction", first_position)
        for name, values in zip(names, spliced, strict=True)
    ]
    return _loss_grid(panels, "Cross-entropy with the reconstruction in place", len(clean))


def ce_under_ablations(
    clean: Real[np.ndarray, " positions"],
    ablated: Mapping[str, Real[np.ndarray, " _"]],
    *,
    first_position: int = 0,
) -> Chart:
    """F15: cross-entropy of the next token (y) at each position (x), a panel an ablation.

    Points: ablated, such as `{"position embeddings zeroed": ...}`; grey line: the clean model.
    """
    if not ablated:
        raise ValueError("A figure of ablations needs at least one.")
    panels = [
        _against_clean(name, clean, values, "ablated", first_position)
        for name, values in ablated.items()
    ]
    return _loss_grid(panels, "Cross-entropy under ablations", len(clean))


def _against_clean(
    title: str,
    clean: Real[np.ndarray, " positions"],
    other: Real[np.ndarray, " _"],
    word: str,
    first_position: int,
) -> Panel:
    if len(clean) != len(other):
        raise ValueError(f"{title} has {len(other)} positions, but the clean model {len(clean)}.")
    shown = drawable(other)
    shown = shown[shown >= first_position]
    marks = position_points(word, shown, other[shown], shown)
    x = np.arange(first_position, len(clean))
    if np.isfinite(clean[first_position:]).any():
        line = Line("clean", x, clean[first_position:], color=PLAIN_GREY, opacity=0.8)
        marks = [*marks, line]
    # The clean model's line alone must not pass for a layer without a cost.
    return titled_panel(title, marks, "" if shown.size else NO_VALUE, absent=NO_VALUE)


def _loss_grid(panels: Sequence[Panel], title: str, context: int) -> Chart:
    has_marks = any(panel.marks for panel in panels)
    x, y = counting_axis(POSITION, context), Axis(_CE)
    return layer_grid(panels, title, x, y, legend=has_marks)


def _curves(
    values: Mapping[str, Real[np.ndarray, " positions"]],
    ends: Mapping[str, tuple[np.ndarray, np.ndarray]],
    first_position: int,
) -> list[Mark]:
    marks: list[Mark] = []
    for name, one in values.items():
        kept = slice(first_position, len(one))
        low, high = (end[kept] for end in ends[name]) if name in ends else (None, None)
        if drawable(one[kept], positive=True).size:
            x = np.arange(first_position, len(one))
            # Of a loss of 0, where no token was, a log axis would make a fall to its bottom.
            y = np.where(one[kept] > 0, one[kept], np.nan)
            marks.append(Line(name, x, y, low, high, opacity=0.8))
    return marks
