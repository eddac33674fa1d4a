"""F18: where the latents of all layers point, on one plane: a panel a layer, and all in one.

Places are those of one map of all layers (`features.decoder_map`), by the layer's name, so a place
is the same in every panel; the grey dots behind a layer's own are the whole map.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from fluoroscope.plots.anatomy.layers import layer_colors, layer_grid, one_panel
from fluoroscope.plots.chart import Axis, Chart, Panel
from fluoroscope.plots.marks import Mark, Scatter
from fluoroscope.plots.palettes import PLAIN_GREY

Places = Mapping[str, Float[np.ndarray, "_ 2"]]
"""`Layer 0`, ... -> where its dots lie."""

Latents = Mapping[str, Int[np.ndarray, " _"]]
"""`Layer 0`, ... -> which latent each dot is."""

_MOST_BEHIND = 3000
_MOST_SERIES = 96


def axis_names(
    method: Literal["pca", "umap", "tsne"], explained: tuple[float, float] | None = None
) -> tuple[str, str]:
    """What is written at the axes; of PCA with the share of variance along each."""
    name = {"pca": "PC", "umap": "UMAP", "tsne": "t-SNE"}[method]
    if explained is None:
        return f"{name} 1", f"{name} 2"
    first, second = (
        f"{name} {i} ({share:.1%} of variance)" for i, share in enumerate(explained, 1)
    )
    return first, second


def layer_maps(
    places: Places, axes: tuple[str, str] = ("", ""), latents: Latents | None = None
) -> Chart:
    """A panel a layer, in the layer's colour; `latents` names each dot on the screen."""
    _check(places, latents)
    behind, colors = _behind(places), layer_colors(list(places))
    panels: list[Panel] = []
    for name, dots in places.items():
        words = _words(name, dots, latents)
        own = Scatter(
            name, dots[:, 0], dots[:, 1], words, color=colors[name], size=_size(len(dots))
        )
        note = "" if len(dots) else "no latent of this layer"
        panels.append(Panel([*behind, own], name, note=note))
    x, y = _axes(places, axes)
    return layer_grid(panels, "Decoder directions of each layer, on one plane", x, y, legend=False)


def combined_map(
    places: Places, axes: tuple[str, str] = ("", ""), latents: Latents | None = None
) -> Chart:
    """All layers in one panel, each dot in the colour of its layer.

    Layers are drawn by turns, some dots of each at a time: else the last would hide the others.
    """
    _check(places, latents)
    colors = layer_colors(list(places))
    size = _size(sum(map(len, places.values())))
    n_turns = max(1, min(8, _MOST_SERIES // len(places)))
    marks: list[Mark] = []
    for turn in range(n_turns):
        for name, dots in places.items():
            words, now = _words(name, dots, latents)[turn::n_turns], dots[turn::n_turns]
            marks.append(Scatter(name, now[:, 0], now[:, 1], words, color=colors[name], size=size))
    x, y = _axes(places, axes)
    return one_panel(Panel(marks), "Decoder directions of all layers, on one plane", x, y)


def _check(places: Places, latents: Latents | None) -> None:
    if not any(len(dots) for dots in places.values()):
        raise ValueError("A map needs a layer with at least one dot.")
    if latents is not None:
        for name, dots in places.items():
            if len(latents.get(name, ())) != len(dots):
                raise ValueError(f"latents must name each of the {len(dots)} dots of {name!r}.")


def _behind(places: Places) -> list[Mark]:
    """The whole map in grey, thinned; nothing behind a layer that is the whole map."""
    if len(places) < 2:
        return []
    together = np.concatenate(list(places.values()))
    most = min(len(together), _MOST_BEHIND)
    shown = together[np.linspace(0, len(together) - 1, most).round().astype(np.int64)]
    return [Scatter("all", shown[:, 0], shown[:, 1], color=PLAIN_GREY, size=8, opacity=0.3)]


def _words(name: str, dots: np.ndarray, latents: Latents | None) -> Sequence[str]:
    if latents is None:
        return [name] * len(dots)
    return [f"{name}, latent {latent}" for latent in latents[name]]


def _size(n: int) -> float:
    """Area of a dot in square points: less where there are many, so that they can be told apart."""
    return float(np.clip(60_000 / max(n, 1), 8, 45))


def _axes(places: Places, names: tuple[str, str]) -> tuple[Axis, Axis]:
    """As long as each other, so that neither direction looks more spread out than it is."""
    together = np.concatenate(list(places.values()))
    low, high = together.min(axis=0), together.max(axis=0)
    half = 0.53 * float((high - low).max()) or 1.0
    first, second = (
        Axis(name, limits=(float(at - half), float(at + half)))
        for name, at in zip(names, (low + high) / 2, strict=True)
    )
    return first, second
