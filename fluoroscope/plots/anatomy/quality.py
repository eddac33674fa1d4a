"""How good the SAEs are: by layer, and sets of SAEs against texts (F19)."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real

from fluoroscope.plots.anatomy.layers import (
    NO_VALUE,
    Estimates,
    check_layers,
    layer_axis,
    layer_grid,
    layer_line,
    titled_panel,
)
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Heatmap, Mark, Number
from fluoroscope.plots.style import Ramp

_LOWEST_EXPLAINED = 0.8


def layer_quality(names: Sequence[str], measures: Mapping[str, Estimates]) -> Chart:
    """Each measure (y) by layer (x) with its interval, a panel a measure.

    `measures` are such as `{"explained variance": ..., "CE difference (nats)": ...,
    "recovered share": ...}`.
    """
    check_layers(names, **{measure: one.value for measure, one in measures.items()})
    panels = []
    for measure, one in measures.items():
        marks: list[Mark] = []
        if np.isfinite(one.value).any():
            marks = [layer_line(measure, one)]
        panel = titled_panel(measure, marks, absent=NO_VALUE)
        panels.append(Panel(panel.marks, panel.title, note=panel.note, y=Axis(measure)))
    return layer_grid(
        panels, "Quality of the SAEs by layer", layer_axis(names), Axis(), legend=False
    )


def cross_heatmaps(
    train_names: Sequence[str],
    evaluation_names: Sequence[str],
    explained: Real[np.ndarray, "train evaluation"],
    l2: Real[np.ndarray, "train evaluation"],
    ce_difference: Real[np.ndarray, "train evaluation"],
) -> Chart:
    """F19: sets of SAEs (rows; by seed, architecture or data set) against texts (columns).

    Three panels: explained variance from 0.8 to 1 (or lower, where it is), L2 loss, and CE
    difference around 0.
    """
    lowest = np.nanmin(explained, initial=_LOWEST_EXPLAINED)
    highest = np.nanmax(explained, initial=1.0)
    panels = [
        _map(
            "Explained variance",
            train_names,
            evaluation_names,
            explained,
            "viridis_r",
            limits=(float(lowest), float(highest)),
        ),
        _map("L2 loss", train_names, evaluation_names, l2, "rocket_r", number_format=".3g"),
        _map(
            "CE difference (nats)",
            train_names,
            evaluation_names,
            ce_difference,
            "coolwarm",
            center=0.0,
        ),
    ]
    title = "SAEs of each set, judged on each text"
    x, y = Axis("text"), Axis("SAEs")
    return layer_grid(panels, title, x, y, legend=False)


def _map(
    title: str,
    train_names: Sequence[str],
    evaluation_names: Sequence[str],
    values: Real[np.ndarray, "train evaluation"],
    ramp: Ramp,
    limits: tuple[Number, Number] | None = None,
    center: float | None = None,
    number_format: str = ".3f",
) -> Panel:
    if not np.isfinite(values).any():
        return titled_panel(title, (), absent=NO_VALUE)
    drawn = Heatmap(
        values,
        evaluation_names,
        train_names,
        ramp=ramp,
        limits=limits,
        center=center,
        show_values=True,
        number_format=number_format,
    )
    return Panel([drawn], title)
