"""F16 and F17: how near the latents of two SAEs are to each other, and all pairs of layers at once.

A cosine says little by itself: what random directions of the same number and width have stands in
grey behind every distribution.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fluoroscope.plots.chart import Axis, Chart, Mark, Panel, Reference
from fluoroscope.plots.marks import Heatmap, Histogram, Line
from fluoroscope.plots.palettes import PLAIN_GREY
from fluoroscope.plots.sheets import NOTE_SHEET, Sheet
from fluoroscope.plots.style import colors

THRESHOLD_RED = "#d62728"

RANDOM = "random directions"

_N_BARS = 60
_N_PLACES = 240
"""Where a curve is computed."""


def match_distributions(
    cosines: Mapping[str, Float[np.ndarray, "_ k"]],
    nulls: Mapping[str, Float[np.ndarray, " _"]],
    expected: Mapping[str, float] | None = None,
    threshold: float = 0.7,
    title: str = "",
    sheet: Sheet = NOTE_SHEET,
) -> Chart:
    """F16: a panel for each way, such as "decoder, A to B", by the same names in all arguments.

    `cosines` are those of each latent with its nearest, second nearest, ...; NaN (dead latents)
    is left out. `nulls` are highest cosines of random directions, `expected` their mean as it
    follows from numbers and width. Curves are Gaussian kernel densities as wide as a bar: usual
    rules for the width expect one hump, and cosines have two where something is shared.
    """
    lines_at = [threshold, *(expected or {}).values()]
    edges = _edges([*cosines.values(), *nulls.values()], lines_at)
    panels: list[Panel] = []
    for name, of_latents in cosines.items():
        lines = [Reference(threshold, f"{threshold:g}", axis="x")]
        if expected is not None:
            lines.append(Reference(expected[name], "expected of random", axis="x"))
        shares = (of_latents[:, 0] > threshold)[~np.isnan(of_latents[:, 0])]
        above = f"{shares.mean():.1%} above {threshold:g}" if len(shares) else "no live latent"
        marks = [*_random(nulls.get(name), edges), *_ranked(of_latents, edges)]
        # Without a latent or a null there is only the title and the lines.
        panels.append(Panel(marks, f"{name}: {above}", lines, "" if marks else "no live latent"))
    return Chart(
        panels,
        Axis("cosine", limits=(edges[0], edges[-1])),
        Axis("share of latents"),
        columns=2,
        title=title,
        sheet=sheet,
    )


def assignment_histogram(
    cosines: Mapping[str, Float[np.ndarray, " _"]],
    threshold: float = 0.7,
    expected: Mapping[str, float] | None = None,
    title: str = "",
    sheet: Sheet = NOTE_SHEET,
) -> Chart:
    """F16: cosines of the pairs of a one-to-one assignment, a panel each for decoder and encoder,
    with the threshold in dashed red and, where it is given, what random directions have at most
    in the mean.
    """
    edges = _edges(cosines.values(), [threshold, *(expected or {}).values()])
    panels: list[Panel] = []
    for name, of_pairs in cosines.items():
        chance = () if expected is None else (Reference(expected[name], "random", axis="x"),)
        if not len(of_pairs):
            panels.append(Panel((), name, chance, note="no pairs"))
            continue
        pairs = Histogram.of("pairs", of_pairs, edges)
        top = float(np.max(np.asarray(pairs.counts))) or 1.0
        line = Line(
            f"threshold {threshold:g}",
            [threshold, threshold],
            [0.0, top],
            style="dashed",
            color=THRESHOLD_RED,
        )
        share = f"{(of_pairs > threshold).mean():.1%}"
        panels.append(Panel([pairs, line], f"{name}: {share} above {threshold:g}", chance))
    return Chart(
        panels,
        Axis("cosine of a pair", limits=(edges[0], edges[-1])),
        Axis("pairs"),
        columns=max(1, len(panels)),
        title=title,
        sheet=sheet,
        legend=True,
    )


def layer_pair_matrix(
    names_a: Sequence[str],
    names_b: Sequence[str],
    ratios: Mapping[str, Float[np.ndarray, "a b"]],
    title: str = "",
    label: str = "shared ratio",
    axes: tuple[str, str] = ("B", "A"),
    sheet: Sheet = NOTE_SHEET,
) -> Chart:
    """F17: shared ratios of all pairs of layers, a heatmap for each entry of `ratios` (such as
    k = 16 and k = 32), rows `names_a`, to two decimals; one colour means the same number in all of
    them. `axes` name what stands along x and y.
    """
    panels = [
        Panel(
            [
                Heatmap(
                    np.round(values, 2),
                    list(names_b),
                    list(names_a),
                    label,
                    "rocket_r",
                    limits=(0, 1),
                )
            ],
            name,
        )
        for name, values in ratios.items()
    ]
    return Chart(
        panels,
        Axis(axes[0]),
        Axis(axes[1]),
        columns=max(1, len(panels)),
        share_x=False,
        share_y=False,
        title=title,
        sheet=sheet,
    )


def _ranked(cosines: Float[np.ndarray, "_ k"], edges: Float[np.ndarray, " _"]) -> list[Mark]:
    """Bars and a curve for the nearest, the second nearest, ..."""
    marks: list[Mark] = []
    for rank, color in enumerate(colors("ordered", cosines.shape[1])):
        values = cosines[:, rank]
        marks += _distribution(f"top {rank + 1}", values[~np.isnan(values)], edges, color)
    return marks


def _random(null: Float[np.ndarray, " _"] | None, edges: Float[np.ndarray, " _"]) -> list[Mark]:
    return [] if null is None else _distribution(RANDOM, null, edges, PLAIN_GREY)


def _distribution(
    name: str, values: Float[np.ndarray, " _"], edges: Float[np.ndarray, " _"], color: str
) -> list[Mark]:
    if not len(values):
        return []
    counts, _ = np.histogram(values, edges)
    places, density = _density(values, edges)
    width = edges[1] - edges[0]
    return [
        Histogram(name, edges, counts / len(values), color),
        Line(name, places, density * width, color=color),
    ]


def _density(
    values: Float[np.ndarray, " _"], edges: Float[np.ndarray, " _"]
) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"]]:
    """A Gaussian kernel density of what lies between the edges, with nothing beyond the last."""
    # Thousands of values fall into so fine a grid that nobody sees it.
    counts, fine = np.histogram(values, np.linspace(edges[0], edges[-1], 4 * _N_PLACES + 1))
    centers = (fine[1:] + fine[:-1]) / 2
    bandwidth = edges[1] - edges[0]
    places = np.linspace(edges[0], edges[-1], _N_PLACES)
    # What would lie beyond 1, where no cosine is, is thrown back.
    away = np.stack([places[:, None] - centers, 2 * edges[-1] - places[:, None] - centers])
    kernel = np.exp(-0.5 * (away / bandwidth) ** 2).sum(0) / (bandwidth * np.sqrt(2 * np.pi))
    return places, kernel @ counts / len(values)


def _edges(parts: Iterable[np.ndarray], lines: Sequence[float]) -> Float[np.ndarray, " _"]:
    """Of bars up to 1 from a tenth below all values, and from clearly below all lines."""
    values = np.concatenate([np.empty(0), *(np.asarray(part, float).ravel() for part in parts)])
    values = values[~np.isnan(values)]
    low = min(float(values.min()) if len(values) else 0.0, 0.9, *(at - 0.02 for at in lines))
    return np.linspace(np.floor(10 * low) / 10, 1.0, _N_BARS + 1)
