"""The tracks of one token as lanes over layers: where they begin, are missed, split and end."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Panel, Scatter
from fluoroscope.plots.style import colors

N_LANES = 12
"""Tracks that are shown: those with the most strength over all layers."""

_GREY, _SPLIT = "#8a8f98", "#d6456a"
_STRENGTHS = (("strength below 0.5", 0.5), ("0.5 to 1", 1.0), ("above 1", np.inf))

_SAID = ("layer", "latent", "activation", "strength", "existence")

Style = Literal["solid", "dashed", "dotted"]
Segment = tuple[tuple[float, float], tuple[float, float]]


def lanes_chart(tokens: Mapping[str, pl.DataFrame], layers: Sequence[int]) -> Chart:
    """A panel a token, by its title; rows of `tokens` are the points of its tracks, as in
    `track/shards/<k>/tracks.parquet`, whose `layer` is a place in `layers`.
    """
    panels = [Panel(lane_marks(points, layers), title) for title, points in tokens.items()]
    n = max([min(N_LANES, points["track"].n_unique()) for points in tokens.values()], default=1)
    return Chart(
        panels,
        Axis("layer", limits=(min(layers) - 0.4, max(layers) + 0.4)),
        Axis("track, strongest first", limits=(max(n, 1) + 0.6, 0.4)),
        columns=2,
    )


def lane_marks(points: pl.DataFrame, layers: Sequence[int]) -> list[Mark]:
    """Lanes of the strongest tracks, few marks for all of them; points have what they are as
    labels. A split from a track that is not shown is not shown.
    """
    shown = _strongest(points)
    at = [
        (track, lane, points.filter(pl.col("track") == track).sort("layer"))
        for lane, track in enumerate(shown, start=1)
    ]
    found, missed = list[Segment](), list[Segment]()
    for _, lane, mine in at:
        for one, other in pairwise(mine["layer"].to_list()):
            segment = ((layers[one], lane), (layers[other], lane))
            (found if other == one + 1 else missed).append(segment)
    return [
        _segments("track", found, "solid", _GREY),
        _segments("missed between", missed, "dotted", _GREY),
        _segments("split", _splits(at, layers), "dashed", _SPLIT),
        *_dots(at, layers),
    ]


def _strongest(points: pl.DataFrame) -> list[int]:
    sums = points.group_by("track").agg(pl.col("strength").sum())
    ordered = sums.sort(["strength", "track"], descending=[True, False])
    return ordered["track"].head(N_LANES).to_list()


def _splits(at: Sequence[tuple[int, int, pl.DataFrame]], layers: Sequence[int]) -> list[Segment]:
    lanes = {track: (lane, mine["layer"].to_list()) for track, lane, mine in at}
    found = []
    for _, lane, mine in at:
        first, parent = int(mine["layer"][0]), int(mine["parent"][0])
        if parent not in lanes:
            continue
        parent_lane, seen = lanes[parent]
        before = [layer for layer in seen if layer < first]
        if before:
            found.append(((layers[before[-1]], parent_lane), (layers[first], lane)))
    return found


def _segments(name: str, segments: Iterable[Segment], style: Style, color: str) -> Line:
    x, y = list[float](), list[float]()
    for (x0, y0), (x1, y1) in segments:
        # A number that is none lifts the pen.
        x += [x0, x1, x1]
        y += [y0, y1, float("nan")]
    return Line(name, x, y, style=style, color=color)


def _dots(at: Sequence[tuple[int, int, pl.DataFrame]], layers: Sequence[int]) -> list[Mark]:
    rows = [(lane, row) for _, lane, mine in at for row in mine.select(_SAID).iter_rows(named=True)]
    marks, low = list[Mark](), 0.0
    for (name, high), color in zip(_STRENGTHS, colors("ordered", len(_STRENGTHS)), strict=True):
        own = [(lane, row) for lane, row in rows if low <= row["strength"] < high]
        marks.append(
            Scatter(
                name,
                [layers[row["layer"]] for _, row in own],
                [lane for lane, _ in own],
                [_says(row, layers) for _, row in own],
                color,
            )
        )
        low = high
    return marks


def _says(row: Mapping[str, float | int], layers: Sequence[int]) -> str:
    return (
        f"layer {layers[int(row['layer'])]}, latent {int(row['latent'])}: activation "
        f"{row['activation']:.3g}, strength {row['strength']:.2f}; the track exists with "
        f"probability {row['existence']:.2f}"
    )
