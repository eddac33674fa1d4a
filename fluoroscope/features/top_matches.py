"""Which latents of two dictionaries point the same way: the highest cosines, in both directions.

The matrix of all cosines is computed once, a block of rows at a time, and never held: each block
is scanned for the best of its rows and of its columns (`top_matches_kernels.py`). The product is
in float32, by however many threads torch has; what is kept of it, with a few to spare, is then
computed again in float64, and where the error of the product could have hidden a better one, all
cosines of that latent are. So neither blocks nor threads nor which side is named first change a
bit of the result. `top_matches_naive` is what it is tested against.

Axes: n latents, n_live of them with a direction, d model width, k matches.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features import top_matches_kernels as kernels
from fluoroscope.features.matching import NONE, Neighbours

BLOCK = 1024
"""Rows of which all cosines are held at a time: 4 x 1,024 x n bytes."""

_SPARE = 4
"""Kept beyond k, so that the error of the product can hardly ever hide one of the k."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of length 1 of an SAE's live latents."""

    rows: Float32[np.ndarray, "n_live d"]
    latents: Int32[np.ndarray, " n_live"]
    """Which latent each row is, ascending."""

    n_latents: int
    """With those that are dead."""

    @classmethod
    def of(cls, weights: Float[Tensor, "n d"], dead: np.ndarray | None = None) -> "Directions":
        """Of rows of weights; dead are those of length 0 and those marked True in `dead` [n]."""
        values = weights.detach().float().cpu().numpy()
        dead = np.zeros(len(values), bool) if dead is None else np.asarray(dead)
        if dead.shape != (len(values),) or dead.dtype != np.bool_:
            # Indices would be taken for marks, and numbers negate to numbers.
            raise ConfigError(
                f"Dead latents are marked by {len(values)} values of True or False, got "
                f"{dead.shape} of {dead.dtype}."
            )
        rows, lengths = kernels.unit_rows(values)
        if not np.isfinite(lengths).all():
            first = int(np.flatnonzero(~np.isfinite(lengths))[0])
            raise NumericsError(
                f"Weights must be finite to have a direction; those of latent {first} (and "
                f"{int((~np.isfinite(lengths)).sum()) - 1} others) are not. Is the SAE damaged?"
            )
        is_live = (lengths > 0) & ~dead
        latents = np.flatnonzero(is_live).astype(np.int32)
        return cls(rows if is_live.all() else rows[latents], latents, len(values))

    def __len__(self) -> int:
        """How many are live."""
        return len(self.latents)

    @property
    def width(self) -> int:
        return self.rows.shape[1]


class TopMatches(NamedTuple):
    """The highest cosines of two dictionaries, for each latent of either."""

    of_a: Neighbours
    of_b: Neighbours


def top_matches(a: Directions, b: Directions, k: int = 4, block: int = BLOCK) -> TopMatches:
    """The `k` latents of `b` with the highest cosine for every latent of `a`, and the other way.

    Of equal cosines (in float32) the lower index stands first. Dead latents match nothing. The
    same bits for any block and number of threads.
    """
    _check(a, b, k, block)
    rows, columns = _Lists(a, b, k), _Lists(b, a, k)
    for first, product in _products(a.rows, b.rows, block):
        n, m = product.shape
        listed = slice(first, first + n)
        kernels.list_rows(product, n, m, 0, rows.values[listed], rows.indices[listed])
        kernels.list_columns(product, n, 0, m, first, columns.values, columns.indices)
    return TopMatches(rows.settled(), columns.settled())


def nearest_within(a: Directions, k: int = 1, block: int = BLOCK) -> Neighbours:
    """The `k` *other* latents of the same dictionary with the highest cosine, for each latent.

    Half of the product is computed: the matrix is symmetric.
    """
    _check(a, a, k, block)
    if len(a) == 1:
        return _neighbours(a, a, k, np.empty((1, 0), np.float32), np.empty((1, 0), np.int32))
    lists = _Lists(a, a, k, itself=True)
    for first in range(0, len(a), block):
        _, product = next(_products(a.rows[first : first + block], a.rows[first:], block))
        n, m = product.shape
        np.fill_diagonal(product, -np.inf)
        rows, columns = slice(first, first + n), slice(first + n, None)
        kernels.list_rows(product, n, m, first, lists.values[rows], lists.indices[rows])
        # Columns of the square on the diagonal are rows of it, and were listed.
        kernels.list_columns(product, n, n, m, first, lists.values[columns], lists.indices[columns])
    return lists.settled()


def top_matches_naive(a: Directions, b: Directions, k: int = 4) -> TopMatches:
    """`top_matches` from the matrix of all cosines, in float64."""
    _check(a, b, k, 1)
    cosines = np.clip(a.rows.astype(np.float64) @ b.rows.T.astype(np.float64), -1, 1)
    return TopMatches(_highest(a, b, cosines, k), _highest(b, a, cosines.T, k))


def _highest(a: Directions, b: Directions, cosines: np.ndarray, k: int) -> Neighbours:
    rounded = cosines.astype(np.float32)
    best = np.argsort(-rounded, axis=1, kind="stable")[:, :k]
    return _neighbours(a, b, k, np.take_along_axis(rounded, best, 1), best.astype(np.int32))


def _products(a: np.ndarray, b: np.ndarray, block: int):
    """Blocks of rows of a b^T, with the first row of each; one buffer for all."""
    right = torch.from_numpy(b).T
    buffer = torch.empty(min(block, len(a)), len(b))
    for first in range(0, len(a), block):
        left = torch.from_numpy(a[first : first + block])
        product = buffer[: len(left)]
        torch.mm(left, right, out=product)
        yield first, product.numpy()


class _Lists:
    """The highest entries so far of each row of `a`, as the product rounded them."""

    def __init__(self, a: Directions, b: Directions, k: int, itself: bool = False) -> None:
        self.a, self.b, self.k, self.itself = a, b, k, itself
        n_listed = min(k + _SPARE, len(b) - itself)
        self.values = np.full((len(a), n_listed), -np.inf, np.float32)
        self.indices = np.full((len(a), n_listed), NONE, np.int32)

    def settled(self) -> Neighbours:
        """With exact cosines."""
        a, b, k = self.a, self.b, min(self.k, self.values.shape[1])
        error = _product_error(a.width)
        cosines, found, certain, off = kernels.settle(
            a.rows, b.rows, self.values, self.indices, k, error, self.itself
        )
        if off > error:
            raise NumericsError(
                f"A product of float32 should be off by {error:.1e} at most, and is by {off:.1e}; "
                "torch.set_float32_matmul_precision('highest') makes it so."
            )
        unsure = np.flatnonzero(~certain)
        kernels.settle_from_all(a.rows, b.rows, unsure, cosines, found, self.itself)
        return _neighbours(a, b, self.k, cosines, found)


def _product_error(width: int) -> float:
    """What a float32 inner product of unit vectors can be off by, in whatever order it is summed
    (Higham 2002, section 3.1), with room for their length and for rounding the exact one.
    """
    return (width + 8) * 2.0**-24


def _neighbours(
    a: Directions, b: Directions, k: int, cosines: np.ndarray, found: np.ndarray
) -> Neighbours:
    """Of all latents, from rows of live ones."""
    all_cosines = np.full((a.n_latents, k), np.nan, np.float32)
    indices = np.full((a.n_latents, k), NONE, np.int32)
    all_cosines[a.latents, : cosines.shape[1]] = cosines
    indices[a.latents, : found.shape[1]] = b.latents[found]
    return Neighbours(indices, all_cosines, b.n_latents)


def _check(a: Directions, b: Directions, k: int, block: int) -> None:
    if a.width != b.width:
        raise ConfigError(
            f"Latents can be matched where both SAEs read the same width; one has d_model "
            f"{a.width}, the other {b.width}."
        )
    if k < 1 or block < 1:
        raise ConfigError(f"k and block must be 1 or more, got {k} and {block}.")
    for side in (a, b):
        if not len(side):
            raise ConfigError(
                f"All {side.n_latents} latents are dead: there is nothing to match. Give an SAE "
                "with latents that are not."
            )
