"""Numba loops behind `top_matches.py`: lists of the highest entries of rows and columns of a matrix
that is seen block by block, and cosines whose bits depend on nothing but their two rows.

A list is filled while blocks pass; most entries are below what is on the list already, which one
comparison of 64 at a time tells. Each list belongs to one thread, so that the number of threads
changes nothing.

Axes: n, m rows of two matrices, d model width, k places of a list, b rows of a block.
"""

from typing import Any

import numpy as np
from numba import njit, prange

_CHUNK = 32
"""Entries that are compared at a time."""

_STRIPE = 1024
"""Columns whose lists one thread fills."""

_TILE = 64
"""Rows of either side whose pairs are computed together."""

_LOWEST = np.float32(-2.0)
"""Below every cosine."""

_FAST: Any = {"contract", "arcp", "nsz", "reassoc"}
# Any: compiled functions take arrays of several types.
_loop: Any = njit(cache=True, parallel=True)
_serial: Any = njit(cache=True)
_inline: Any = njit(cache=True, fastmath=_FAST)
# What is not finite was refused before; without this, no maximum vectorises.
_inline_finite: Any = njit(cache=True, fastmath={*_FAST, "nnan", "ninf"})


@_loop
def unit_rows(rows):
    """Rows [n, d] of float32 with length 1, and their lengths in float64; a row of 0 stays."""
    n, d = rows.shape
    units = np.empty((n, d), np.float32)
    lengths = np.empty(n, np.float64)
    for r in prange(n):
        lengths[r] = _dot(rows[r], rows[r]) ** 0.5
        scale = 1.0 / lengths[r] if lengths[r] > 0 else 0.0
        for j in range(d):
            units[r, j] = np.float32(rows[r, j] * scale)
    return units, lengths


@_loop
def list_rows(block, n_rows, n_columns, first_column, values, indices):
    """Puts entries of the first rows of `block` on the lists [n_rows, k] of those rows.

    Column c of the block is index `first_column` + c.
    """
    for r in prange(n_rows):
        listed, which = values[r], indices[r]
        for start in range(0, n_columns, _CHUNK):
            end = min(start + _CHUNK, n_columns)
            if _highest(block[r, start:end]) > listed[-1]:
                for c in range(start, end):
                    if block[r, c] > listed[-1]:
                        _insert(listed, which, block[r, c], first_column + c)


@_loop
def list_columns(block, n_rows, skipped, n_columns, first_row, values, indices):
    """Puts entries of all columns of `block` but the first `skipped` on the lists
    [n_columns - skipped, k] of those columns.

    Row r of the block is index `first_row` + r.
    """
    n_stripes = (n_columns - skipped + _STRIPE - 1) // _STRIPE
    for s in prange(n_stripes):
        first = skipped + s * _STRIPE
        last = min(first + _STRIPE, n_columns)
        floor = values[first - skipped : last - skipped, -1].copy()
        for r in range(n_rows):
            for start in range(first, last, _CHUNK):
                end = min(start + _CHUNK, last)
                if _n_above(block[r, start:end], floor[start - first : end - first]):
                    for c in range(start, end):
                        if block[r, c] > floor[c - first]:
                            listed = values[c - skipped]
                            _insert(listed, indices[c - skipped], block[r, c], first_row + r)
                            floor[c - first] = listed[-1]


@_inline_finite
def _highest(entries):
    highest = entries[0]
    for j in range(len(entries)):
        highest = entries[j] if entries[j] > highest else highest
    return highest


@_inline
def _n_above(entries, floor):
    count = np.uint8(0)
    for j in range(len(entries)):
        count += np.uint8(entries[j] > floor[j])
    return count


@_serial
def _insert(listed, which, value, index):
    # Behind its equals: what came first stays first.
    place = len(listed) - 1
    while place > 0 and listed[place - 1] < value:
        listed[place] = listed[place - 1]
        which[place] = which[place - 1]
        place -= 1
    listed[place] = value
    which[place] = index


@_loop
def settle(a, b, values, indices, k, error, itself):
    """The k highest cosines of each row of `a` [n, d] among those that are listed, and whether
    they are the highest of all.

    `values` are those of a float32 product, off by at most `error` (returned is by how much they
    are at most), `indices` rows of `b`. What is not listed is at most the last of the list, so the
    answer is certain where the k-th cosine is above that by more than the error. `itself`: row r
    of `a` is row r of `b`, and not on its own list.
    """
    n, n_listed = values.shape
    cosines = np.full((n, k), _LOWEST)
    found = np.full((n, k), -1, np.int32)
    certain = np.empty(n, np.bool_)
    off = np.zeros(n)
    n_others = len(b) - (1 if itself else 0)
    for r in prange(n):
        # In the order of their indices, so that the lower of equals stands first.
        for place in np.argsort(indices[r]):
            j = indices[r, place]
            exact = _dot(a[r], b[j])
            off[r] = max(off[r], abs(exact - values[r, place]))
            if _rounded(exact) > cosines[r, -1]:
                _insert(cosines[r], found[r], _rounded(exact), j)
        certain[r] = n_listed == n_others or cosines[r, -1] > values[r, -1] + error
    return cosines, found, certain, off.max() if n else 0.0


@_loop
def settle_from_all(a, b, rows, cosines, found, itself):
    """The highest cosines of some rows, from all cosines of these rows; in place."""
    for p in prange(len(rows)):
        r = rows[p]
        cosines[r] = _LOWEST
        found[r] = -1
        for j in range(len(b)):
            if not (itself and j == r):
                cosine = _rounded(_dot(a[r], b[j]))
                if cosine > cosines[r, -1]:
                    _insert(cosines[r], found[r], cosine, j)


@_loop
def all_cosines(a, b):
    """Cosines [n, m] of all pairs of rows, rounded to float32 and written as float64."""
    n, m = len(a), len(b)
    out = np.empty((n, m), np.float64)
    # A tile of rows of both stays in the cache while all its pairs are computed.
    for tile in prange((n + _TILE - 1) // _TILE):
        rows = range(tile * _TILE, min((tile + 1) * _TILE, n))
        for first in range(0, m, _TILE):
            last = min(first + _TILE, m)
            for r in rows:
                j = first
                while j + 4 <= last:
                    dots = _four_dots(a[r], b[j], b[j + 1], b[j + 2], b[j + 3])
                    for i in range(4):
                        out[r, j + i] = _rounded(dots[i])
                    j += 4
                while j < last:
                    out[r, j] = _rounded(_dot(a[r], b[j]))
                    j += 1
    return out


@_loop
def pair_cosines(a, b):
    """Cosines [n] of row r of `a` and row r of `b`."""
    out = np.empty(len(a), np.float32)
    for r in prange(len(a)):
        out[r] = _rounded(_dot(a[r], b[r]))
    return out


@_inline
def _rounded(cosine):
    # To float32: what differs by the rounding of float64 sums is equal.
    return np.float32(min(max(cosine, -1.0), 1.0))


@_inline
def _dot(a, b):
    total = 0.0
    for j in range(len(a)):
        total += np.float64(a[j]) * np.float64(b[j])
    return total


@_inline
def _four_dots(a, b, c, d, e):
    # One pass over `a` for four.
    to_b, to_c, to_d, to_e = 0.0, 0.0, 0.0, 0.0
    for j in range(len(a)):
        x = np.float64(a[j])
        to_b += x * b[j]
        to_c += x * c[j]
        to_d += x * d[j]
        to_e += x * e[j]
    return to_b, to_c, to_d, to_e
