"""Latents of several layers that are one feature by their directions alone: feature families.

Two latents are joined where each is the other's nearest, after the direction was carried to the
later layer, and their cosine is high; a family is what is joined, directly or over others
(connected components). From one layer to the next this makes chains; what leaps over a layer joins
chains, so that a family may have several latents of a layer. It is about decoders alone.

Axes: e edges, n members of families.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.matching import Neighbours, mutual_nearest

MIN_COSINE = 0.5


@dataclass(frozen=True, eq=False)
class Families:
    """Sorted by family, then layer, then latent; latents that are joined to none are not here."""

    families: Int32[np.ndarray, " n"]
    """Numbered by their first layer, then their first latent in it."""

    layers: Int32[np.ndarray, " n"]
    latents: Int32[np.ndarray, " n"]
    sources: Int32[np.ndarray, " e"]
    """Of each edge the member (an index) in the earlier layer."""

    targets: Int32[np.ndarray, " e"]
    cosines: Float32[np.ndarray, " e"]

    def __len__(self) -> int:
        """How many families there are."""
        return int(self.families[-1]) + 1 if len(self.families) else 0


def feature_families(
    graph: Sequence[Sequence[Neighbours]], widths: Sequence[int], min_cosine: float = MIN_COSINE
) -> Families:
    """`graph[gap - 1][l]` leads from layer l to l + gap; `widths` are the latents of each layer."""
    if any(len(layers) != len(widths) - gap for gap, layers in enumerate(graph, start=1)):
        raise ConfigError(
            f"{len(widths)} layers have as many neighbours less one over a gap of 1, and so on; "
            f"got {[len(layers) for layers in graph]}."
        )
    starts = np.cumsum([0, *widths])
    found = [
        _edges(near, int(starts[layer]), int(starts[layer + gap]), min_cosine)
        for gap, layers in enumerate(graph, start=1)
        for layer, near in enumerate(layers)
    ]
    sources, targets, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    n = int(starts[-1])
    links = coo_array((np.ones(len(sources)), (sources, targets)), shape=(n, n))
    component = connected_components(links, directed=False)[1]
    is_member = np.bincount(component, minlength=n)[component] > 1
    members = np.flatnonzero(is_member)
    # Nodes count from the first layer on, so the first of a component decides its number.
    first, family = np.unique(component[members], return_index=True, return_inverse=True)[1:]
    family = np.argsort(np.argsort(first))[family]
    members = members[order := np.lexsort((members, family))]
    place = np.full(n, -1)
    place[members] = np.arange(len(members))
    layers = np.searchsorted(starts, members, side="right") - 1
    return Families(
        families=family[order].astype(np.int32),
        layers=layers.astype(np.int32),
        latents=(members - starts[layers]).astype(np.int32),
        sources=place[sources].astype(np.int32),
        targets=place[targets].astype(np.int32),
        cosines=cosines.astype(np.float32),
    )


def _edges(
    near: Neighbours, here: int, there: int, min_cosine: float
) -> tuple[Int64[np.ndarray, " e"], Int64[np.ndarray, " e"], Float32[np.ndarray, " e"]]:
    best = mutual_nearest(near).astype(np.int64)
    cosines = near.cosines[:, 0]
    sources = np.flatnonzero((best >= 0) & (np.nan_to_num(cosines, nan=-1.0) >= min_cosine))
    return here + sources, there + best[sources], cosines[sources]
