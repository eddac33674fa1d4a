"""Pooled latents of replies, as they come: sparse rows of every hook point, and dense activations.

What is held are the active entries of the samples of one part; no row of the dictionary's width
outlives its reply.

Axes: n samples, d_model, nnz active entries.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.tensors import open_tensors, write_tensors
from fluoroscope.features.correlation_pooling import Pooling
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.texts import Capture
from fluoroscope.sae.base import SparseAutoencoder

DENSE: Pooling = "mean"
"""How activations are pooled over the tokens of a reply."""

_DENSE = "dense"


class ReplyLatents:
    """Fills up as replies are given; rows stand in the order of the samples."""

    def __init__(
        self, saes: Mapping[str, SparseAutoencoder], pools: Sequence[Pooling], n_samples: int
    ) -> None:
        self._saes, self._pools = saes, list(pools)
        self._entries: dict[str, list[tuple[np.ndarray, np.ndarray] | None]] = {
            _name(point, pool): [None] * n_samples for point in saes for pool in pools
        }
        self._dense = {
            point: np.zeros((n_samples, sae.d_model), np.float32) for point, sae in saes.items()
        }

    @property
    def captures(self) -> dict[str, Capture]:
        """What is to be captured for them."""
        found = {}
        for point, sae in self._saes.items():
            read = _encoder(sae)
            for pool in self._pools:
                found[_name(point, pool)] = Capture(HookPoint(point), pool, read)
            found[_name(point, _DENSE)] = Capture(HookPoint(point), DENSE)
        return found

    def add(self, place: int, captured: Mapping[str, Tensor]) -> None:
        for name, entries in self._entries.items():
            row = captured[name]
            indices = row.nonzero().flatten()
            values = row[indices]
            if not bool(values.isfinite().all()):
                raise NumericsError(f"A latent of {name} is a NaN or an infinity; find where from.")
            entries[place] = (indices.cpu().numpy().astype(np.int32), values.float().cpu().numpy())
        for point, rows in self._dense.items():
            rows[place] = captured[_name(point, _DENSE)].float().cpu().numpy()

    def rows(self, point: str, pool: Pooling) -> csr_array:
        """[n, d_sae] in float64."""
        entries = [one for one in self._entries[_name(point, pool)] if one is not None]
        offsets = np.concatenate([[0], np.cumsum([len(indices) for indices, _ in entries])])
        values = _joined(entries, 1, np.float32).astype(np.float64)
        shape = (len(entries), self._saes[point].d_sae)
        return csr_array((values, _joined(entries, 0, np.int32), offsets), shape=shape)

    def save(self, path: Path) -> None:
        """One file, of which `load_rows` and `load_dense` read parts."""
        tensors = {_name(point, _DENSE): torch.from_numpy(x) for point, x in self._dense.items()}
        for name, entries in self._entries.items():
            rows = [one for one in entries if one is not None]
            assert len(rows) == len(entries)
            counts = [len(indices) for indices, _ in rows]
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            tensors[f"{name} offsets"] = torch.from_numpy(offsets)
            tensors[f"{name} indices"] = torch.from_numpy(_joined(rows, 0, np.int32))
            tensors[f"{name} values"] = torch.from_numpy(_joined(rows, 1, np.float32))
        write_tensors(path, tensors)


def load_rows(path: Path, point: str, pool: Pooling, d_sae: int) -> csr_array:
    """[n, d_sae] in float64."""
    name = _name(point, pool)
    with open_tensors(path) as tensors:
        offsets, indices, values = (
            tensors.get_tensor(f"{name} {part}").numpy()
            for part in ("offsets", "indices", "values")
        )
    shape = (len(offsets) - 1, d_sae)
    return csr_array((values.astype(np.float64), indices.astype(np.int64), offsets), shape=shape)


def load_dense(path: Path, point: str) -> Float[np.ndarray, "n d_model"]:
    with open_tensors(path) as tensors:
        return tensors.get_tensor(_name(point, _DENSE)).numpy().astype(np.float64)


def _encoder(sae: SparseAutoencoder) -> Callable[[Tensor], Tensor]:
    def encode(x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        # A model in half precision is encoded in that of its SAE.
        return sae.encode(x.to(sae.W_dec.dtype))

    return encode


def _name(point: str, what: str) -> str:
    return f"{point} {what}"


def _joined(rows: Sequence[tuple[np.ndarray, np.ndarray]], part: int, dtype: type) -> np.ndarray:
    return np.concatenate([row[part] for row in rows] or [np.zeros(0)]).astype(dtype)
