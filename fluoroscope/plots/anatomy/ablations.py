"""Statistics of a model without its positions, beside those of the clean model."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real

from fluoroscope.plots.anatomy.layers import (
    NO_LATENT,
    NO_VALUE,
    Estimates,
    PerLayer,
    check_layers,
    context_of,
    counting_axis,
    drawable,
    layer_axis,
    layer_grid,
    layer_line,
    measured,
    one_panel,
    titled_panel,
)
from fluoroscope.plots.anatomy.positions import POSITION
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Line, Mark
from fluoroscope.plots.palettes import PLAIN_GREY
from fluoroscope.plots.style import CATEGORICAL

Variants = Mapping[str, PerLayer]
"""The clean model first, then its ablations."""


def overlaid_position_means(
    names: Sequence[str], variants: Variants, *, first_position: int = 1
) -> Chart:
    """Mean non-zero activation (y) at each position (x), a line a variant, a panel a layer.

    `variants` are such as `{"clean": ..., "position embeddings zeroed": ...}`; the first is grey.
    """
    there = {variant: measured(part) for variant, part in variants.items()}
    title = "Mean activation at each position, clean and ablated"
    return _overlaid(names, there, first_position, title, Axis("mean activation"))


def overlaid_position_densities(
    names: Sequence[str], variants: Variants, *, first_position: int = 1
) -> Chart:
    """Share of active latents (y) at each position (x), a line a variant, a panel a layer."""
    title = "Density at each position, clean and ablated"
    return _overlaid(names, variants, first_position, title, Axis("density"))


def latent_coefficients_by_position(
    latents: Sequence[str],
    variants: Variants,
    *,
    bands: Mapping[str, tuple[PerLayer, PerLayer]] | None = None,
    first_position: int = 1,
) -> Chart:
    """Mean activation of a latent, zeros included (y), at each position (x), a panel a latent.

    This is the coefficient that steering would take from one position. Where it depends on the
    position in the clean model and no longer in one without positions, positions made it so.
    """
    title = "Steering coefficients by position"
    return _overlaid(latents, variants, first_position, title, Axis("mean activation"), bands)


def position_shares(
    names: Sequence[str],
    shares: Variants,
    *,
    null: Real[np.ndarray, " layers"] | None = None,
    ends: tuple[float, float] = (10, 90),
) -> Chart:
    """Share of latents' variance that their position explains (y), by layer (x).

    Lines are medians over latents, bands the percentiles `ends` of them, `null` what chance gives
    (0 for epsilon squared). Latents that were never active should be NaN.
    """
    check_layers(names, **shares)
    marks: list[Mark] = []
    for variant, shade in _shades(shares).items():
        found = [one[drawable(one)] for one in shares[variant]]
        if not any(one.size for one in found):
            continue
        at = [50.0, *ends]
        middle, low, high = np.array(
            [np.percentile(one, at) if one.size else [np.nan] * 3 for one in found]
        ).T
        marks.append(layer_line(variant, Estimates(middle, low, high), shade))
    if null is not None and np.isfinite(null).any():
        chance = "chance" if np.any(null) else "chance (0)"
        marks.append(layer_line(chance, Estimates(null), PLAIN_GREY, "dashed"))
    return one_panel(
        titled_panel("", marks, absent=NO_LATENT),
        "Share of each latent's variance between positions "
        f"(median, {ends[0]:g}-{ends[1]:g} % of latents)",
        layer_axis(names),
        Axis("share of variance between positions"),
        legend=bool(marks),
    )


def _overlaid(
    names: Sequence[str],
    variants: Variants,
    first_position: int,
    title: str,
    y: Axis,
    bands: Mapping[str, tuple[PerLayer, PerLayer]] | None = None,
) -> Chart:
    check_layers(names, **variants)
    context = context_of([one for part in variants.values() for one in part])
    panels: list[Panel] = []
    for i, name in enumerate(names):
        marks: list[Mark] = []
        for variant, shade in _shades(variants).items():
            kept = slice(first_position, context)
            values, x = variants[variant][i][kept], np.arange(first_position, context)
            ends = (bands or {}).get(variant)
            low, high = (None, None) if ends is None else (end[i][kept] for end in ends)
            if drawable(values).size:
                marks.append(Line(variant, x, values, low, high, color=shade, opacity=0.8))
        panels.append(titled_panel(name, marks, absent=NO_VALUE))
    return layer_grid(
        panels,
        title,
        counting_axis(POSITION, context),
        y,
        share_y=False,
        legend=any(panel.marks for panel in panels),
    )


def _shades(variants: Mapping[str, object]) -> dict[str, str]:
    """Grey for what is compared with, and a colour for each ablation."""
    others = (CATEGORICAL[i % len(CATEGORICAL)] for i in range(len(variants)))
    return dict(zip(variants, (PLAIN_GREY, *others), strict=False))
