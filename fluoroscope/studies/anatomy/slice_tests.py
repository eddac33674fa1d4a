"""Is a latent as often active on one slice of a corpus as on another, block by block?

Welch's t of the share of a block's text tokens in which a latent is active. The units are blocks of
consecutive sequences (`TextSlice.block`), as tokens of a document, and documents in one window, are
not independent. Beside them stand the same tests of halves of one slice into which its blocks were
dealt at random, several times: nothing but chance tells those apart.

Axes: s latents.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import ttest_ind_from_stats

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.features.multiple_tests import benjamini_hochberg

Q_BELOW = 0.05


class RateDifference(NamedTuple):
    difference: Float[np.ndarray, " s"]
    """Rate on the other slice less that on the first."""

    p: Float[np.ndarray, " s"]
    """Two-sided; NaN for latents that are active in neither, or where a slice has too few
    blocks (`MIN_UNITS`)."""


def rate_difference(
    latents: Mapping[str, np.ndarray], one: str, others: Mapping[str, np.ndarray], other: str
) -> RateDifference:
    """`latents` and `others` as the statistics keep them; `one` and `other` name whose rates."""
    mean = [latents[f"{one}/rate"], others[f"{other}/rate"]]
    variance = [latents[f"{one}/variance"], others[f"{other}/variance"]]
    n = [int(latents[f"{one}/n"][0]), int(others[f"{other}/n"][0])]
    p = np.full(len(mean[0]), np.nan)
    # Where all blocks are alike there is nothing to hold a difference against.
    can_tell = (variance[0] + variance[1] > 0) & (min(n) >= MIN_UNITS)
    if can_tell.any():
        found = ttest_ind_from_stats(
            *(mean[0][can_tell], np.sqrt(variance[0][can_tell]), n[0]),
            *(mean[1][can_tell], np.sqrt(variance[1][can_tell]), n[1]),
            equal_var=False,
        )
        p[can_tell] = found.pvalue
    return RateDifference(mean[1] - mean[0], p)


class Discoveries(NamedTuple):
    n_different: list[int]
    """Of each layer, latents with q below 0.05."""

    n_tested: list[int]


def discoveries(layers: Sequence[RateDifference]) -> Discoveries:
    """Corrected over the latents of all layers together (Benjamini and Hochberg 1995)."""
    ends = np.cumsum([len(one.p) for one in layers])
    q = np.split(benjamini_hochberg(np.concatenate([one.p for one in layers])), ends[:-1])
    return Discoveries(
        [int((part < Q_BELOW).sum()) for part in q],
        [int(np.isfinite(one.p).sum()) for one in layers],
    )
