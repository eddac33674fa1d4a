"""Numba loops behind `activation_columns.py` and `statistics.py`, on numpy arrays.

A latent's numbers are summed by one thread in the order of its tokens, in float64, so neither the
number of threads nor the cut into blocks changes a bit.

Axes: s latents of a block, nnz active entries, n tokens, p positions, q sequences, l levels.
"""

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Array = NDArray[Any]  # Any: compiled functions take each array in its own type.

# No fastmath: sums keep their order, and a NaN would be seen.
_loop: Any = njit(cache=True, parallel=True)
_serial: Any = njit(cache=True)


@_serial
def count_latents(latents, counts):
    """Adds the entries of latent i to `counts[i + 1]`."""
    for latent in latents:
        counts[latent + 1] += 1


@_serial
def place_by_latent(latents, tokens, values, place, out_tokens, out_values):
    """A counting sort, stable: the next entry of latent i goes to `place[i]`."""
    for i in range(len(latents)):
        at = place[latents[i]]
        out_tokens[at], out_values[at] = tokens[i], values[i]
        place[latents[i]] = at + 1


@_loop
def append_columns(starts, tokens, values, filled, out_tokens, out_values):
    """Puts each latent's entries of one part behind those of it that are there."""
    for i in prange(len(starts) - 1):
        at = filled[i]
        for j in range(starts[i], starts[i + 1]):
            out_tokens[at], out_values[at] = tokens[j], values[j]
            at += 1
        filled[i] = at


@_loop
def row_moments(offsets, values):
    """Number, mean and sum of squared deviations of the entries of each row."""
    n = len(offsets) - 1
    count, mean, squares = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    for row in prange(n):
        total = 0.0
        for j in range(offsets[row], offsets[row + 1]):
            if values[j] > 0:
                total += values[j]
                count[row] += 1
        if count[row]:
            mean[row] = total / count[row]
        for j in range(offsets[row], offsets[row + 1]):
            if values[j] > 0:
                squares[row] += (values[j] - mean[row]) ** 2
    return count, mean, squares


@_loop
def column_moments(starts, tokens, values, is_counted, levels, out):
    """Of the entries of each latent whose token counts: `out` rows hold number, mean, sum of
    squared deviations, largest, and the quantiles at `levels` (linear between order statistics).
    """
    for i in prange(len(starts) - 1):
        own = np.empty(starts[i + 1] - starts[i], values.dtype)
        n, total = 0, 0.0
        for j in range(starts[i], starts[i + 1]):
            if is_counted[tokens[j]]:
                own[n] = values[j]
                total += values[j]
                n += 1
        out[i, :] = 0.0
        if n == 0:
            continue
        mean, squares = total / n, 0.0
        for j in range(n):
            squares += (own[j] - mean) ** 2
        own[:n].sort()
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = n, mean, squares, own[n - 1]
        for level in range(len(levels)):
            place = (n - 1) * levels[level]
            below = min(int(place), n - 1)
            above = min(below + 1, n - 1)
            low, high = np.float64(own[below]), np.float64(own[above])
            out[i, 4 + level] = low + (high - low) * (place - below)


@_loop
def position_shares(starts, tokens, values, is_counted, n_at, context, out):
    """The share of each latent's variance over counted tokens that lies between positions, less
    what chance would give (epsilon squared, Kelley 1935); `n_at` counted tokens stand at each. 0 of
    a latent that is never active; NaN where no position has more than one counted token.
    """
    n_positions, n_tokens = 0, 0
    for p in range(context):
        n_tokens += n_at[p]
        n_positions += n_at[p] > 0
    for i in prange(len(starts) - 1):
        sums = np.zeros(context)
        total, n_active = 0.0, 0
        for j in range(starts[i], starts[i + 1]):
            if is_counted[tokens[j]]:
                sums[tokens[j] % context] += values[j]
                total += values[j]
                n_active += 1
        out[i] = 0.0
        if n_active == 0:
            continue
        if n_tokens <= n_positions:
            out[i] = np.nan
            continue
        mean = total / n_tokens
        within_all, between = (n_tokens - n_active) * mean * mean, 0.0
        for j in range(starts[i], starts[i + 1]):
            if is_counted[tokens[j]]:
                within_all += (values[j] - mean) ** 2
        for p in range(context):
            if n_at[p]:
                between += n_at[p] * (sums[p] / n_at[p] - mean) ** 2
        noise = (within_all - between) / (n_tokens - n_positions)
        # Below this all values are the same, and what is left is rounding.
        if within_all > 1e-24 * n_tokens * mean * mean:
            out[i] = (between - (n_positions - 1) * noise) / within_all


@_loop
def position_moments(starts, tokens, values, is_counted, n_at, context, mean, squares):
    """Mean and sum of squared deviations of each latent at each position, over counted tokens,
    zeros included; `n_at` counted tokens stand at each.
    """
    for i in prange(len(starts) - 1):
        n_active = np.zeros(context)
        mean[i, :], squares[i, :] = 0.0, 0.0
        for j in range(starts[i], starts[i + 1]):
            if is_counted[tokens[j]]:
                mean[i, tokens[j] % context] += values[j]
                n_active[tokens[j] % context] += 1.0
        for p in range(context):
            if n_at[p]:
                mean[i, p] /= n_at[p]
                squares[i, p] = (n_at[p] - n_active[p]) * mean[i, p] ** 2
        for j in range(starts[i], starts[i + 1]):
            if is_counted[tokens[j]]:
                squares[i, tokens[j] % context] += (values[j] - mean[i, tokens[j] % context]) ** 2
