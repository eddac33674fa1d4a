"""How often latents are active in each of some units of text, such as documents, group by group.

Tokens of one document are not independent, so whoever compares two slices of a corpus counts
documents: the share of a document's tokens in which a latent is active is one number.

Axes: s latents, n tokens, u units, g groups.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numba import njit, prange

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.activation_columns import LatentColumns

NONE = -1
"""The unit of a token that does not count, and the group of a unit that is in none."""

_loop: Any = njit(cache=True, parallel=True)  # Any: a compiled function takes arrays of any type.


class Rates(NamedTuple):
    """Of the share of a unit's tokens in which a latent is active, over the units of a group."""

    n: Int[np.ndarray, " g"]
    """Units of each group."""

    mean: Float[np.ndarray, "s g"]
    variance: Float[np.ndarray, "s g"]
    """Divided by one less than n; 0 where there is one unit."""


def unit_rates(
    columns: LatentColumns, unit: Int[np.ndarray, " n"], group: Int[np.ndarray, " u"], n_groups: int
) -> Rates:
    """`unit` is that of each token, `group` that of each unit; either may be `NONE`."""
    columns.check_tokens(len(unit))
    if len(unit) and not (unit.min() >= NONE and unit.max() < len(group)):
        raise ConfigError(f"Units are -1 to {len(group) - 1}, got {unit.min()} to {unit.max()}.")
    if len(group) and not (group.min() >= NONE and group.max() < n_groups):
        raise ConfigError(f"Groups are -1 to {n_groups - 1}, got {group.min()} to {group.max()}.")
    length = np.bincount(unit[unit >= 0], minlength=len(group)).astype(np.int64)
    # A unit without a token that counts has no rate.
    counted = np.where(length > 0, group, NONE).astype(np.int64)
    mean, variance = (np.zeros((columns.d_sae, n_groups)) for _ in range(2))
    n = np.array([(counted == g).sum() for g in range(n_groups)], np.int64)
    for block in columns.blocks():
        rows = slice(block.first, block.first + len(block.starts) - 1)
        _add(block.starts, block.tokens, unit, length, counted, n, mean[rows], variance[rows])
    return Rates(n, mean, variance)


@_loop
def _add(starts, tokens, unit, length, group, n, mean, variance):
    for i in prange(len(starts) - 1):
        rates = np.zeros(len(length))
        for j in range(starts[i], starts[i + 1]):
            if unit[tokens[j]] >= 0:
                rates[unit[tokens[j]]] += 1.0
        for u in range(len(length)):
            if group[u] >= 0:
                rates[u] /= length[u]
                mean[i, group[u]] += rates[u] / n[group[u]]
        for u in range(len(length)):
            if group[u] >= 0 and n[group[u]] > 1:
                off = rates[u] - mean[i, group[u]]
                variance[i, group[u]] += off * off / (n[group[u]] - 1)
