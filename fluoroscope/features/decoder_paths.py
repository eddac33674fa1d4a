"""Which latent of the next layer a latent comes nearest to, one to one, layer after layer.

Latents of two SAEs have no order in common: row 7 of one has nothing to do with row 7 of the
other. Before anything is drawn as moving from layer to layer, rows are matched, each to one of its
own, such that the sum of cosines is the largest that there is (the Hungarian problem).

Axes: l layers, n latents that are followed, s and t rows of two decoders, d model width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.features.decoder_map import DecoderMap, unit_rows
from fluoroscope.features.matching_nulls import random_rotation


class RowMatches(NamedTuple):
    """One row of the target for every row of the source."""

    rows: Int64[np.ndarray, " s"]
    """No row of the target twice."""

    cosines: Float64[np.ndarray, " s"]
    cosines_by_chance: Float64[np.ndarray, " s"]
    """What a matching as good as this one has where nothing corresponds: the cosines of the
    source's matches in a randomly rotated copy of the target. The best of many matchings is far
    from 0 by itself."""


@dataclass(frozen=True, eq=False)
class DecoderPaths:
    """Latents that are followed through all layers of a map."""

    layers: tuple[str, ...]
    latents: Int64[np.ndarray, "l n"]
    """Row of the decoder, by layer; column by column it is one path."""

    places: Float32[np.ndarray, "l n 2"]
    """Where on the map, as `plots.animation` takes them."""

    cosines: Float64[np.ndarray, "steps n"]
    """From each layer to the next: the cosine of the two rows."""

    cosines_by_chance: Float64[np.ndarray, "steps n"]
    """The same of matches in a randomly rotated copy of the next layer: what a step of no meaning
    has. Column by column they are not those of the latents, only as many."""

    n_not_followed: int
    """Dots of the first layer that are on the map and not followed."""


def matched_rows(
    source: Float[np.ndarray, "s d"], target: Float[np.ndarray, "t d"], seed: int = 0
) -> RowMatches:
    """The one-to-one matching of rows with the largest sum of cosines; exact.

    Rows have a length, and there are no more of `source` than of `target`. 2,000 rows among 24,576
    of width 768 take some 700 MB and eight seconds on one core, half of the time for chance.
    """
    if len(source) > len(target):
        raise ConfigError(
            f"Each of {len(source)} rows needs one of its own; the target has {len(target)}."
        )
    source, target = (unit_rows(rows).astype(np.float32) for rows in (source, target))
    rows, cosines = _best(source, target)
    turn = random_rotation(source.shape[1], seed, "matched rows")
    # Turning the source one way is turning the target the other way, and it has fewer rows.
    _, by_chance = _best(source @ turn, target)
    return RowMatches(rows, cosines, by_chance)


def _best(
    source: Float32[np.ndarray, "s d"], target: Float32[np.ndarray, "t d"]
) -> tuple[Int64[np.ndarray, " s"], Float64[np.ndarray, " s"]]:
    """Rows of the target and their cosines, of unit rows."""
    costs = source @ target.T
    # Negated in place, for scipy copies it to maximise.
    np.negative(costs, out=costs)
    places, rows = linear_sum_assignment(costs)
    return rows.astype(np.int64), -costs[places, rows].astype(np.float64)


def decoder_paths(
    decoders: Mapping[str, Float[np.ndarray, "_ d"]],
    found: DecoderMap,
    n: int = 2000,
    seed: int = 0,
) -> DecoderPaths:
    """Follows `n` dots of the first layer, drawn evenly, to their matches in each next layer.

    Matches are sought among all dots of the next layer. A layer with fewer dots than `n` lowers
    `n` for all.
    """
    names = tuple(found.layers)
    if len(names) < 2:
        raise ConfigError(f"Latents are followed from layer to layer; the map has {len(names)}.")
    dots = [found.layers[name] for name in names]
    n = min(n, *(len(one.latents) for one in dots))
    if n < 1:
        raise ConfigError("A layer of the map has no dots, so there is nothing to follow.")
    n_first = len(dots[0].latents)
    here = np.sort(stream(seed, "decoder paths").choice(n_first, n, replace=False))
    which, steps = [here], list[RowMatches]()
    for now, later in pairwise(names):
        source = decoders[now][found.layers[now].latents[which[-1]]]
        steps.append(matched_rows(source, decoders[later][found.layers[later].latents], seed))
        which.append(steps[-1].rows)
    return DecoderPaths(
        names,
        np.stack([one.latents[rows] for one, rows in zip(dots, which, strict=True)]),
        np.stack([one.places[rows] for one, rows in zip(dots, which, strict=True)]),
        np.stack([step.cosines for step in steps]),
        np.stack([step.cosines_by_chance for step in steps]),
        n_first - n,
    )
