"""Latents of a sample's steps as one row: the largest, the mean or the last of them.

The state of step t is the one that emits token t (CorrSteer, arXiv:2508.12535: max over the
generated tokens; one-token tasks have one step). Which steps count is said by a mask and never by
a place in a padded buffer: steps of other samples may lie between, and the step that emits the end
of a text does not count. What is held grows with the latents a sample has been active in, not with
its steps, and no row is ever made dense.

Axes: `steps` rows of the latents that come in, `samples`, `d_sae` latents.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.sae.sparse_kernels import SparseLatents

Pooling = Literal["max", "mean", "last"]
"""What is kept of a latent's values over the steps that count, zeros included."""


def pool(
    latents: SparseLatents,
    offsets: Int[np.ndarray, " n_offsets"],
    how: Pooling = "max",
    counts: Bool[np.ndarray, " steps"] | None = None,
) -> csr_array:
    """One row a sample, whose steps are rows `offsets[j]` to `offsets[j + 1]`: [samples, d_sae].

    `counts` marks the steps that count (all). A sample none of whose steps counts has no entry.
    """
    lengths = np.diff(offsets)
    if offsets[0] != 0 or (lengths < 0).any() or offsets[-1] != latents.n_rows:
        raise ConfigError(
            f"offsets must rise from 0 to the {latents.n_rows} steps there are, got "
            f"{offsets[0]} to {offsets[-1]}."
        )
    pooled = PooledSteps(len(lengths), latents.d_sae, how)
    pooled.add(latents, np.repeat(np.arange(len(lengths)), lengths), counts)
    return pooled.rows()


class PooledSteps:
    """The same as steps come, those of many samples in one call; later calls are later steps."""

    def __init__(self, n_samples: int, d_sae: int, how: Pooling = "max") -> None:
        check_pooling(how)
        self.n_samples, self.d_sae, self.how = n_samples, d_sae, how
        self.n_steps: Int[np.ndarray, " samples"] = np.zeros(n_samples, dtype=np.int64)
        """Steps of each sample that counted."""
        self._keys = np.zeros(0, dtype=np.int64)
        self._values, self._hits = np.zeros(0), np.zeros(0, dtype=np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._n_waiting = 0

    def add(
        self,
        latents: SparseLatents,
        sample: Int[np.ndarray, " steps"],
        counts: Bool[np.ndarray, " steps"] | None = None,
    ) -> None:
        """`sample` is whose step each row is; `counts` marks those that count (all).

        Rows that do not count may be of no sample at all.
        """
        if latents.d_sae != self.d_sae or len(sample) != latents.n_rows:
            raise ConfigError(
                f"Expected {len(sample)} steps of {self.d_sae} latents, got {latents.n_rows} of "
                f"{latents.d_sae}."
            )
        is_kept = np.ones(len(sample), bool) if counts is None else counts
        if len(is_kept) != len(sample):
            raise ConfigError(f"counts has {len(is_kept)} steps, but there are {len(sample)}.")
        kept = sample[is_kept]
        if len(kept) and not 0 <= kept.min() <= kept.max() < self.n_samples:
            raise ConfigError(f"A step's sample must be 0 to {self.n_samples - 1}.")
        self.n_steps += np.bincount(kept, minlength=self.n_samples)
        if self.how == "last":
            is_kept = _is_last(sample, is_kept)
            self._forget(np.unique(sample[is_kept]))
        row = latents.rows.cpu().numpy()
        chosen = is_kept[row]
        values = latents.values.detach().cpu().numpy()[chosen].astype(np.float64)
        if not np.isfinite(values).all():
            raise NumericsError("A latent of a step is a NaN or an infinity; find where from.")
        indices = latents.indices.cpu().numpy()[chosen].astype(np.int64)
        whose = sample[row[chosen]].astype(np.int64)
        self._waiting.append((whose * self.d_sae + indices, values))
        self._n_waiting += len(values)
        # Twice what is held already, so that each entry is sorted a few times at most.
        if self._n_waiting > max(2 * len(self._keys), 1 << 14):
            self._gather()

    def rows(self) -> csr_array:
        """[samples, d_sae] in float64, without entries that are zero."""
        self._gather()
        sample, latent = np.divmod(self._keys, self.d_sae)
        values = self._values
        match self.how:
            case "mean":
                values = values / self.n_steps[sample]
            case "max":
                # A step without an entry is a zero among the values.
                values = np.where(
                    self._hits < self.n_steps[sample], np.maximum(values, 0.0), values
                )
            case "last":
                pass
        starts = np.searchsorted(sample, np.arange(self.n_samples + 1))
        made = csr_array((values, latent, starts), shape=(self.n_samples, self.d_sae))
        made.eliminate_zeros()
        return made

    def _forget(self, samples: Int[np.ndarray, " some"]) -> None:
        self._gather()
        stays = ~np.isin(self._keys // self.d_sae, samples)
        self._keys, self._values = self._keys[stays], self._values[stays]
        self._hits = self._hits[stays]

    def _gather(self) -> None:
        """Brings what waits to one entry a sample and latent."""
        if not self._waiting:
            return
        new_keys, new_values = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting, self._n_waiting = [], 0
        keys = np.concatenate([self._keys, new_keys])
        values = np.concatenate([self._values, new_values])
        hits = np.concatenate([self._hits, np.ones(len(new_keys), dtype=np.int64)])
        if not len(keys):
            return
        # Stable: a sum adds its steps in the order of time.
        order = np.argsort(keys, kind="stable")
        keys, values, hits = keys[order], values[order], hits[order]
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        reduce = np.maximum if self.how == "max" else np.add
        self._keys, self._values = keys[first], _float(reduce.reduceat(values, first))
        self._hits = np.add.reduceat(hits, first)


def check_pooling(how: str) -> None:
    """Raises `ConfigError` for what is no way to pool."""
    if how not in get_args(Pooling):
        raise ConfigError(f"Steps are pooled by one of {get_args(Pooling)}, got {how!r}.")


def _is_last(
    sample: Int[np.ndarray, " steps"], counts: Bool[np.ndarray, " steps"]
) -> Bool[np.ndarray, " steps"]:
    """The last step of each sample that counts."""
    kept = np.flatnonzero(counts)
    _, from_end = np.unique(sample[kept][::-1], return_index=True)
    is_last = np.zeros(len(sample), bool)
    is_last[kept[len(kept) - 1 - from_end]] = True
    return is_last


def _float(values: np.ndarray) -> Float[np.ndarray, " entries"]:
    return values.astype(np.float64, copy=False)
