"""Values of latents counted in bins, apart for successes and failures: quantiles, information.

A value is counted in bin ceil(log_g |x|) with g = (1 + e) / (1 - e), as in DDSketch (Masson, Rim
and Lee 2019, arXiv:1908.10693), so that the middle of a bin is within a share e = `RELATIVE_ERROR`
of each value in it. Bins need no edges from a first pass or a sample, counts merge exactly in any
order, and deciles are made of whole bins afterwards. Only cells that hold something are kept: at
most 58 a decade, latent and side, whatever number of rows was seen.

Axes: `d_sae` latents, `entries` values that are not zero, `cells` counts that are not zero.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.running_stats import Arrays

RELATIVE_ERROR = 0.02
"""Of a quantile."""

N_PARTS = 10
"""Parts of the active values (deciles) that mutual information tells apart, beside the zeros."""

Side = Literal["all", "success", "failure"]


class BinCounts:
    """Counts of `d_sae` latents' values that are not zero."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self._keys = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0

    def add(
        self,
        latent: Int[np.ndarray, " entries"],
        value: Float[np.ndarray, " entries"],
        is_success: Bool[np.ndarray, " entries"],
    ) -> None:
        number = np.ceil(np.log(np.abs(value)) / _LOG_GROWTH).astype(np.int64)
        code = np.sign(value).astype(np.int64) * (number + _ZERO)
        self._waiting.append((latent * _SPAN + code + _SPAN // 2) * 2 + is_success)
        self._n_waiting += len(latent)
        if self._n_waiting > max(2 * len(self._keys), 1 << 16):
            self._gather()

    def merge(self, other: "BinCounts") -> None:
        """Takes in what `other` has seen."""
        self._gather()
        other._gather()
        self._take(other._keys, other._counts)

    def quantile(self, share: float, side: Side = "all") -> Float[np.ndarray, " d_sae"]:
        """Of the values that are not zero: that of rank floor(share * (count - 1)); NaN if none."""
        if not 0 <= share <= 1 or side not in get_args(Side):
            raise ConfigError(
                f"A quantile is asked for by a share from 0 to 1 of one of {get_args(Side)}, got "
                f"{share} of {side!r}."
            )
        latent, code, is_success, counts = self._cells()
        if side != "all":
            counts = np.where(is_success == (side == "success"), counts, 0)
        total = np.bincount(latent, counts, self.d_sae)
        passed = np.cumsum(counts) - (np.cumsum(total) - total)[latent]
        rank = np.floor(share * np.maximum(total - 1, 0))
        # Cells are in order of value, so the first that passes the rank holds it.
        found = np.flatnonzero((passed > rank[latent]) & (counts > 0))
        which, first = np.unique(latent[found], return_index=True)
        quantile = np.full(self.d_sae, np.nan)
        quantile[which] = _middle(code[found[first]])
        return quantile

    def mutual_information(self, n_success: int, n_failure: int) -> Float[np.ndarray, " d_sae"]:
        """Between the part a value is in (zero, or a tenth of the active ones) and success, in
        nats; of that many rows.

        I = sum p(part, side) log p(part, side) / (p(part) p(side)), which SpARE selects by
        (arXiv:2410.15999), with the bias of each entropy taken off by the cells it has (Miller
        1955): + (cells of the parts + 2 - 1 - cells of both) / 2n. Around zero, and so also
        negative, where nothing is told; NaN for a latent that is never active.
        """
        table = self._by_part(n_success, n_failure)
        n = n_success + n_failure
        parts, sides = table.sum(axis=2), table.sum(axis=1)
        entropy = _entropy(parts, n) + _entropy(sides, n) - _entropy(table.reshape(-1, _CELLS), n)
        n_cells = (parts > 0).sum(axis=1) + (sides > 0).sum(axis=1) - (table > 0).sum(axis=(1, 2))
        is_active = parts[:, 1:].any(axis=1)
        return np.where(is_active, entropy + (n_cells - 1) / (2 * n), np.nan)

    def state(self) -> Arrays:
        """Arrays that `from_state` makes the same object of."""
        self._gather()
        return {"keys": self._keys, "counts": self._counts}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], d_sae: int) -> "BinCounts":
        made = cls(d_sae)
        made._keys, made._counts = state["keys"], state["counts"]
        return made

    def _by_part(self, n_success: int, n_failure: int) -> Float[np.ndarray, "d_sae parts 2"]:
        """Rows in each part, of failures and of successes; zeros come first."""
        latent, code, is_success, counts = self._cells()
        bins, which = np.unique(latent * _SPAN + code + _SPAN // 2, return_inverse=True)
        height = np.bincount(which, counts, len(bins))
        total = np.bincount(bins // _SPAN, height, self.d_sae)
        # A bin goes whole to the part that its middle row is in.
        middle = np.cumsum(height) - height / 2 - (np.cumsum(total) - total)[bins // _SPAN]
        part = np.floor(N_PARTS * middle / total[bins // _SPAN]).astype(np.int64)
        cell = (latent * (N_PARTS + 1) + 1 + part[which]) * 2 + is_success
        table = np.bincount(cell, counts, self.d_sae * _CELLS).reshape(self.d_sae, N_PARTS + 1, 2)
        table[:, 0] = [n_failure, n_success] - table[:, 1:].sum(axis=1)
        return table

    def _cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Latent, code of the bin, side and count, in order of latent and value."""
        self._gather()
        rest, is_success = np.divmod(self._keys, 2)
        latent, code = np.divmod(rest, _SPAN)
        return latent, code - _SPAN // 2, is_success, self._counts

    def _gather(self) -> None:
        if self._waiting:
            keys, counts = np.unique(np.concatenate(self._waiting), return_counts=True)
            self._waiting, self._n_waiting = [], 0
            self._take(keys, counts)

    def _take(self, keys: Int[np.ndarray, " cells"], counts: Int[np.ndarray, " cells"]) -> None:
        together, which = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        both = np.concatenate([self._counts, counts])
        # Whole numbers, which floats add exactly.
        summed = np.bincount(which, both, len(together)).astype(np.int64)
        self._keys, self._counts = together, summed


def _middle(code: Int[np.ndarray, " some"]) -> Float[np.ndarray, " some"]:
    return np.sign(code) * 2 * np.exp((np.abs(code) - _ZERO) * _LOG_GROWTH) / (_GROWTH + 1)


def _entropy(counts: Float[np.ndarray, "d_sae cells"], n: int) -> Float[np.ndarray, " d_sae"]:
    share = counts / n
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)


_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = math.log(_GROWTH)
_ZERO = 1 << 15
"""Number of the bin of 1, once shifted; all finite floats lie on either side."""
_SPAN = 4 * _ZERO
_CELLS = 2 * (N_PARTS + 1)
