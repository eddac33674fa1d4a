"""Numba loops behind `sparse_kernels.py`, on numpy arrays.

Selection first takes the maximum of every block of 16 entries (which vectorises), then looks
only into blocks that can hold a kept entry: a full top-k would read everything several times.
Every output row is summed by one thread in a fixed order, so the number of threads changes no
bit. Compiled code is cached on disk; the first call of a fresh installation takes seconds.

Axes: n rows (tokens), s latents, d model width, nnz active entries.
"""

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Entries = tuple[Ints, Ints, Floats]
"""offsets [n + 1], indices [nnz], values [nnz]."""

_BLOCK = 16
_FAST: Any = {"contract", "arcp", "nsz", "reassoc"}
# Any: compiled functions are called with arrays of either float type.
_loop: Any = njit(cache=True, parallel=True, fastmath=_FAST)
_inline: Any = njit(cache=True, fastmath=_FAST)
# Only for what is not trusted further where an entry is NaN: without this, no maximum vectorises.
_inline_finite: Any = njit(cache=True, fastmath={*_FAST, "nnan"})
_serial: Any = njit(cache=True)


def top_k(pre: Floats, k: int) -> Entries:
    """Positive entries among the `k` largest of each row; ties go to the lower index."""
    return _compact(*_top_k_rows(pre, k))


def batch_top_k(pre: Floats, n_kept: int) -> Entries:
    """Positive entries among the `n_kept` largest of all; ties at the border all stay."""
    # A sample bounds the border from below with room to spare; only what lies above the bound
    # is partitioned exactly. Should the bound prove too high, it is taken lower.
    tiny = np.finfo(pre.dtype).tiny
    sample = pre.reshape(-1)[:: 61 if pre.size > 1 << 16 else 1]
    for slack in (1.3, 2.0, 4.0, np.inf):
        position = int(len(sample) * (1 - min(1.0, slack * n_kept / pre.size)))
        position = min(position, len(sample) - 1)
        bound = max(np.partition(sample, position)[position], tiny) if slack < np.inf else tiny
        offsets, indices, values = above(pre, np.full(pre.shape[1], _below(bound, pre.dtype)))
        if len(values) >= n_kept or bound == tiny:
            break
    if len(values) <= n_kept:
        return offsets, indices, values
    border = np.partition(values, -n_kept)[-n_kept]
    return _filter(offsets, indices, values, border)


def _below(number: float | np.floating, dtype: np.dtype) -> np.floating:
    # Strictly above the next smaller float is the same as at least the number.
    return np.nextafter(dtype.type(number), dtype.type(-np.inf))


def above(pre: Floats, floor: Floats) -> Entries:
    """Entries strictly above their column's `floor`."""
    room = min(pre.shape[1], max(64, pre.shape[1] // 16))
    indices, values, counts = _above_rows(pre, floor, room)
    if len(counts) and counts.max() > room:
        indices, values, counts = _above_rows(pre, floor, int(counts.max()))
    return _compact(indices, values, counts)


@_loop
def _top_k_rows(pre, k):
    n, s = pre.shape
    indices = np.empty((n, k), np.int32)
    values = np.empty((n, k), pre.dtype)
    counts = np.empty(n, np.int64)
    n_blocks = (s + _BLOCK - 1) // _BLOCK
    for r in prange(n):
        row = pre[r]
        maxima = np.empty(n_blocks, pre.dtype)
        for b in range(n_blocks):
            maxima[b] = _highest(row[b * _BLOCK : (b + 1) * _BLOCK])
        # k blocks reach this height, so at least k entries do.
        bound = _height_of(maxima, k) if n_blocks >= k else row.min()
        chosen = np.empty(s + 1, np.int32)
        n_chosen = 0
        for b in range(n_blocks):
            if maxima[b] >= bound:
                for j in range(b * _BLOCK, min((b + 1) * _BLOCK, s)):
                    chosen[n_chosen] = j
                    n_chosen += row[j] >= bound
        # Only a row with NaN has fewer; it keeps nothing, and its reconstruction tells.
        counts[r] = 0
        if n_chosen < k:
            continue
        candidates = row[chosen[:n_chosen]]
        border = np.partition(candidates, n_chosen - k)[n_chosen - k]
        ties = k
        for c in range(n_chosen):
            ties -= candidates[c] > border
        count = 0
        for c in range(n_chosen):
            keep = candidates[c] > border
            if candidates[c] == border and ties > 0:
                ties -= 1
                keep = True
            if keep and candidates[c] > 0:
                indices[r, count] = chosen[c]
                values[r, count] = candidates[c]
                count += 1
        counts[r] = count
    return indices, values, counts


@_inline_finite
def _highest(entries):
    highest = entries[0]
    for j in range(len(entries)):
        highest = entries[j] if entries[j] > highest else highest
    return highest


@_inline
def _height_of(maxima, k):
    # A height that at least k of the maxima reach, and not many more: bisection counts all of
    # them faster than a partition finds the k-th.
    low, high = maxima.min(), maxima.max()
    for _ in range(12):
        middle = low + (high - low) / 2
        count = _n_reaching(maxima, middle)
        if count < k:
            high = middle
        else:
            low = middle
            if count <= k + k // 4:
                break
    return low


@_inline
def _n_reaching(maxima, height):
    count = np.int32(0)
    for j in range(len(maxima)):
        count += np.int32(maxima[j] >= height)
    return count


@_loop
def _above_rows(pre, floor, room):
    # The first `room` hits of each row, taken while the row is in the cache, and their number.
    n, s = pre.shape
    indices = np.empty((n, room), np.int32)
    values = np.empty((n, room), pre.dtype)
    counts = np.empty(n, np.int64)
    for r in prange(n):
        row = pre[r]
        count = 0
        for start in range(0, s, _BLOCK):
            n_hits = _n_above(row[start : start + _BLOCK], floor[start : start + _BLOCK])
            if n_hits > 0 and count + n_hits <= room:
                place = count
                for j in range(start, min(start + _BLOCK, s)):
                    if row[j] > floor[j]:
                        indices[r, place] = j
                        values[r, place] = row[j]
                        place += 1
            count += n_hits
        counts[r] = count
    return indices, values, counts


@_inline
def _n_above(entries, floor):
    count = np.uint8(0)
    for j in range(len(entries)):
        count += np.uint8(entries[j] > floor[j])
    return count


@_loop
def _gather(indices, values, offsets):
    kept_indices = np.empty(offsets[-1], np.int32)
    kept_values = np.empty(offsets[-1], values.dtype)
    for r in prange(len(indices)):
        start, end = offsets[r], offsets[r + 1]
        kept_indices[start:end] = indices[r, : end - start]
        kept_values[start:end] = values[r, : end - start]
    return kept_indices, kept_values


def _compact(indices: Ints, values: Floats, counts: Ints) -> Entries:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets, *_gather(indices, values, offsets)


@_serial
def _filter(offsets, indices, values, border):
    kept = np.zeros_like(offsets)
    total = np.sum(values >= border)
    kept_indices = np.empty(total, indices.dtype)
    kept_values = np.empty(total, values.dtype)
    place = 0
    for r in range(len(offsets) - 1):
        for p in range(offsets[r], offsets[r + 1]):
            if values[p] >= border:
                kept_indices[place] = indices[p]
                kept_values[place] = values[p]
                place += 1
        kept[r + 1] = place
    return kept, kept_indices, kept_values


@_loop
def product(offsets, indices, values, W):
    """Row r of the result [n, d] is the sum of `values` times rows of `W` [s, d]."""
    n, d = len(offsets) - 1, W.shape[1]
    out = np.empty((n, d), W.dtype)
    for r in prange(n):
        _weighted_rows(out[r], indices, values, offsets[r], offsets[r + 1], W)
    return out


@_inline
def _weighted_rows(out, rows, weights, start, end, W):
    # Four rows at a time: one pass over `out` for four multiply-adds.
    d = W.shape[1]
    out[:] = 0
    p = start
    while p + 4 <= end:
        w0, w1, w2, w3 = W[rows[p]], W[rows[p + 1]], W[rows[p + 2]], W[rows[p + 3]]
        v0, v1, v2, v3 = weights[p], weights[p + 1], weights[p + 2], weights[p + 3]
        for j in range(d):
            out[j] += v0 * w0[j] + v1 * w1[j] + v2 * w2[j] + v3 * w3[j]
        p += 4
    while p < end:
        w0, v0 = W[rows[p]], weights[p]
        for j in range(d):
            out[j] += v0 * w0[j]
        p += 1


@_loop
def sampled_dot(offsets, indices, x, W):
    """For every entry (r, j), the dot product of row r of `x` and row j of `W`."""
    n, d = len(offsets) - 1, W.shape[1]
    out = np.empty(len(indices), W.dtype)
    for r in prange(n):
        for p in range(offsets[r], offsets[r + 1]):
            w = W[indices[p]]
            total = W.dtype.type(0)
            for j in range(d):
                total += x[r, j] * w[j]
            out[p] = total
    return out


def transposed_product(
    offsets: Ints, indices: Ints, values: Floats, x: Floats, n_columns: int
) -> Floats:
    """Row j of the result [n_columns, d] is the sum of `values` of column j times rows of `x`."""
    starts, rows, weights = _transpose(offsets, indices, values, n_columns)
    return product(starts, rows, weights, x)


@_serial
def _transpose(offsets, indices, values, n_columns):
    starts = np.zeros(n_columns + 1, np.int64)
    for j in indices:
        starts[j + 1] += 1
    for j in range(n_columns):
        starts[j + 1] += starts[j]
    place = starts[:-1].copy()
    rows = np.empty(len(indices), np.int32)
    weights = np.empty(len(indices), values.dtype)
    for r in range(len(offsets) - 1):
        for p in range(offsets[r], offsets[r + 1]):
            slot = place[indices[p]]
            rows[slot] = r
            weights[slot] = values[p]
            place[indices[p]] = slot + 1
    return starts, rows, weights
