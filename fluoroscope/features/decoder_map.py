"""Where the latents of several layers point, as dots on one plane.

All layers are laid out together and only then told apart: maps that are fitted one by one have
axes of their own, and where a dot lies on one says nothing about another. Rows are brought to
length 1 first, so nearness is by cosine alone.

A plane keeps little of hundreds of dimensions. `DecoderMap.explained` says how much of the variance
(PCA), and `neighbours_kept` whether dots that are near are so in truth, beside the same number for
planes drawn at random. t-SNE and UMAP keep neighbours better and distances not at all: the
gaps between their heaps, and the sizes of the heaps, mean nothing.

Axes: s latents of one SAE, d model width, n dots of one layer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.linalg import eigh
from sklearn.manifold import TSNE, trustworthiness

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.seeding import derive_seed, stream

Method = Literal["pca", "umap", "tsne"]

MOST_DOTS = 1000
"""Rows of a layer that UMAP and t-SNE lay out, unless another number is given: ten layers of so
many take a minute or two on one core."""

_BLOCK = 4096
_RANDOM_PLANES = 3


@dataclass(frozen=True, eq=False)
class LayerDots:
    """The dots of one layer."""

    latents: Int64[np.ndarray, " n"]
    """Which row of the decoder each dot is, ascending."""

    places: Float32[np.ndarray, "n 2"]
    """Where it lies, on axes that all layers share."""

    n_dead: int
    """Rows left out because their latent is not live."""

    n_zero: int
    """Live rows left out because their length is 0, so that they point nowhere."""

    n_not_drawn: int
    """Rows with a direction that are not on the map, for it would hold too many."""


@dataclass(frozen=True, eq=False)
class DecoderMap:
    """All layers on one plane."""

    method: Method
    layers: Mapping[str, LayerDots]
    """By the names that were given, in their order."""

    explained: tuple[float, float] | None
    """Share of the variance of all directions along either axis; only PCA has it."""

    neighbours_kept: float
    """Trustworthiness (Venna and Kaski 2001), 0 to 1: 1 where dots near on the map are near."""

    neighbours_kept_by_chance: float
    """The same of planes drawn at random, the mean of three."""

    n_judged: int
    """Dots, drawn from all layers, among which neighbours were compared."""

    n_neighbours: int
    """How many neighbours of each."""

    @property
    def places(self) -> dict[str, Float32[np.ndarray, "_ 2"]]:
        """Layer -> its dots, as `plots.anatomy.maps` takes them."""
        return {name: dots.places for name, dots in self.layers.items()}


def decoder_map(
    decoders: Mapping[str, Float[np.ndarray, "_ d"]],
    method: Method = "pca",
    seed: int = 0,
    live: Mapping[str, Bool[np.ndarray, " _"]] | None = None,
    most_dots: int | None = None,
    n_judged: int = 2000,
    n_neighbours: int = 15,
) -> DecoderMap:
    """One plane for the decoder rows of all layers, `decoders` by the layer's name.

    `live` tells which latents of a layer are live (all, where it is absent). Of each layer at most
    `most_dots` rows, drawn evenly, become dots: by default all with PCA, whose plane is always that
    of all rows, and `MOST_DOTS` with UMAP and t-SNE, which see no others. PCA is exact, and each
    axis points to where its largest loading is positive; the others are the same for the same
    seed, on the same machine.
    """
    _check(decoders, method, most_dots)
    pointing = {name: _pointing(name, rows, live) for name, rows in decoders.items()}
    limit = most_dots if method == "pca" else most_dots or MOST_DOTS
    drawn = {name: _drawn(name, latents, limit, seed) for name, latents in pointing.items()}
    _check_enough(drawn, pointing)
    explained = None
    if method == "pca":
        centre, axes, explained = _plane(decoders, pointing)
        places = np.concatenate([(block - centre) @ axes for block in _blocks(decoders, drawn)])
    else:
        places = _laid_out(np.concatenate(list(_blocks(decoders, drawn))), method, seed)
    places = places.astype(np.float32)
    kept, by_chance, n = _judged(decoders, drawn, places, n_judged, n_neighbours, seed)
    found = _layers(decoders, live, pointing, drawn, places)
    return DecoderMap(method, found, explained, kept, by_chance, n, _near(n, n_neighbours))


def unit_rows(rows: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Rows brought to length 1; none may be 0."""
    rows = rows.astype(np.float64)
    # Divided by the largest first: squares of tiny and of huge numbers are 0 and infinity.
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _check(decoders: Mapping[str, np.ndarray], method: str, most_dots: int | None) -> None:
    if method not in ("pca", "umap", "tsne"):
        raise ConfigError(f"method must be pca, umap or tsne, got {method!r}.")
    if method == "umap" and find_spec("umap") is None:
        raise ConfigError(
            "method=umap needs the package umap-learn. Install it with "
            "`pip install fluoroscope[umap]`, or take method=pca or method=tsne."
        )
    if most_dots is not None and most_dots < 1:
        raise ConfigError(f"most_dots must be 1 or more, got {most_dots}.")
    widths = {name: rows.shape[1] for name, rows in decoders.items()}
    if len(set(widths.values())) > 1:
        raise ConfigError(f"One plane needs decoders of one width, got {widths}.")
    if min(widths.values(), default=2) < 2:
        raise ConfigError(f"A plane needs a width of 2 or more, got {widths}.")


def _pointing(
    name: str, rows: np.ndarray, live: Mapping[str, np.ndarray] | None
) -> Int64[np.ndarray, " n"]:
    """Live rows that have a direction."""
    if not np.isfinite(rows).all():
        raise NumericsError(f"The decoder of {name} holds NaN or infinity; it has no map.")
    is_pointing = rows.any(axis=1)
    if live is not None:
        if name not in live or len(live[name]) != len(rows):
            have = f"{len(live[name])} values" if name in live else "none"
            raise ConfigError(f"live needs a value for each of {len(rows)} rows of {name}: {have}.")
        is_pointing &= live[name]
    return np.nonzero(is_pointing)[0].astype(np.int64)


def _drawn(
    name: str, latents: Int64[np.ndarray, " n"], most: int | None, seed: int
) -> Int64[np.ndarray, " m"]:
    if most is None or len(latents) <= most:
        return latents
    return np.sort(stream(seed, "decoder map", name).choice(latents, most, replace=False))


def _check_enough(drawn: Mapping[str, np.ndarray], pointing: Mapping[str, np.ndarray]) -> None:
    n = sum(map(len, drawn.values()))
    if n < 4:
        found = {name: len(latents) for name, latents in pointing.items()}
        raise ConfigError(
            f"A map needs 4 dots or more, got {n}; live rows with a direction by layer: {found}."
        )


def _plane(
    decoders: Mapping[str, np.ndarray], pointing: Mapping[str, np.ndarray]
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d 2"], tuple[float, float]]:
    """Mean, axes and shares of variance of all rows; they are never all in memory as doubles."""
    n = sum(map(len, pointing.values()))
    width = next(iter(decoders.values())).shape[1]
    centre, spread = np.zeros(width), np.zeros((width, width))
    for block in _blocks(decoders, pointing):
        centre += block.sum(axis=0) / n
    for block in _blocks(decoders, pointing):
        block -= centre
        spread += block.T @ block
    values, vectors = eigh(spread, subset_by_index=(width - 2, width - 1))
    axes = vectors[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    total = float(np.trace(spread))
    # Rows have length 1: of rows that are all the same this is what rounding leaves.
    total = total if total > 1e-24 * n else 0.0
    first, second = (max(float(value), 0.0) / total if total else 0.0 for value in values[::-1])
    return centre, axes, (first, second)


def _blocks(
    decoders: Mapping[str, np.ndarray], pointing: Mapping[str, np.ndarray]
) -> Iterator[Float64[np.ndarray, "_ d"]]:
    for name, latents in pointing.items():
        for first in range(0, len(latents), _BLOCK):
            yield unit_rows(decoders[name][latents[first : first + _BLOCK]])


def _laid_out(units: np.ndarray, method: Method, seed: int) -> Float[np.ndarray, "n 2"]:
    number = derive_seed(seed, "decoder map", method) % 2**32
    points, n = units.astype(np.float32), len(units)
    if method == "tsne":
        # On unit rows the squared distances that t-SNE takes are 2 - 2 cos.
        perplexity = min(30.0, (n - 1) / 3)
        return TSNE(perplexity=perplexity, random_state=number, n_jobs=1).fit_transform(points)
    # By its name: it takes seconds to import, and is an extra that may not be there.
    UMAP = import_module("umap").UMAP
    near = min(15, n - 1)
    return UMAP(n_neighbors=near, metric="cosine", random_state=number, n_jobs=1).fit_transform(
        points
    )


def _layers(
    decoders: Mapping[str, np.ndarray],
    live: Mapping[str, np.ndarray] | None,
    pointing: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    places: Float32[np.ndarray, "n 2"],
) -> dict[str, LayerDots]:
    found: dict[str, LayerDots] = {}
    for (name, latents), part in zip(drawn.items(), np.split(places, _ends(drawn)), strict=True):
        n_rows, n_pointing = len(decoders[name]), len(pointing[name])
        n_dead = 0 if live is None else int((~live[name]).sum())
        n_zero = n_rows - n_dead - n_pointing
        found[name] = LayerDots(latents, part, n_dead, n_zero, n_pointing - len(latents))
    return found


def _judged(
    decoders: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    places: np.ndarray,
    n_judged: int,
    n_neighbours: int,
    seed: int,
) -> tuple[float, float, int]:
    """Trustworthiness of the map and of random planes, and among how many dots."""
    random = stream(seed, "decoder map", "judged")
    n = min(len(places), max(n_judged, 4))
    is_chosen = np.zeros(len(places), bool)
    is_chosen[random.choice(len(places), n, replace=False)] = True
    parts = np.split(is_chosen, _ends(drawn))
    chosen = {
        name: latents[part] for (name, latents), part in zip(drawn.items(), parts, strict=True)
    }
    truth, near = np.concatenate(list(_blocks(decoders, chosen))), _near(n, n_neighbours)
    kept = trustworthiness(truth, places[is_chosen], n_neighbors=near)
    planes = random.standard_normal((_RANDOM_PLANES, truth.shape[1], 2))
    by_chance = [
        trustworthiness(truth, truth @ np.linalg.qr(plane).Q, n_neighbors=near) for plane in planes
    ]
    return float(kept), float(np.mean(by_chance)), n


def _ends(drawn: Mapping[str, np.ndarray]) -> list[int]:
    """Where one layer's dots end and the next one's begin."""
    return np.cumsum([len(latents) for latents in drawn.values()])[:-1].tolist()


def _near(n: int, n_neighbours: int) -> int:
    # The measure is defined for fewer neighbours than half of the dots.
    return max(1, min(n_neighbours, (n - 1) // 2))
