"""What the activations of an SAE look like: per latent and per token position, exactly.

Zeros are left out of means, deviations and quantiles, and counted in densities. A latent that was
never active has a count of 0, and 0 in the place of the rest, never NaN. Every sum is in
float64 and over the float32 activations themselves; deviations are taken from the mean in a second
look, so that a large mean costs no digits. `naive_statistics.py` says the same on dense arrays.

Tokens are numbered through: token `q * context + p` stands at position p of sequence q.

Axes: s latents, n tokens, q sequences, p positions (context), l levels, g groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features import statistics_kernels as kernels
from fluoroscope.features.activation_columns import LatentColumns
from fluoroscope.sae.sparse_kernels import SparseLatents

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the quantiles; the median is the fifth."""

MEDIAN = LEVELS.index(0.5)

EVERY, TEXT = "with BOS", "without BOS"
"""All tokens; and those that are text: no start or separator token, and not the first position,
which attends to nothing but itself whatever token stands there."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Which tokens there are: sequences side by side, each `context` places wide."""

    exists: Bool[np.ndarray, "q p"]
    """False behind the end of a sequence that is shorter than the context."""

    is_text: Bool[np.ndarray, "q p"]
    """False on BOS and separators."""

    @property
    def context(self) -> int:
        return self.exists.shape[1]

    @property
    def n_sequences(self) -> int:
        return self.exists.shape[0]

    def counted(self, which: str) -> Bool[np.ndarray, "q p"]:
        """The tokens of `EVERY`, or of `TEXT`."""
        if which == EVERY:
            return self.exists
        counted = self.exists & self.is_text
        counted[:, 0] = False
        return counted


@dataclass(frozen=True, eq=False)
class LatentMoments:
    """Of each latent, over the tokens in which it is active."""

    count: Int[np.ndarray, " s"]
    density: Float[np.ndarray, " s"]
    """Share of all counted tokens, active or not."""

    mean: Float[np.ndarray, " s"]
    std: Float[np.ndarray, " s"]
    """Of the population (divided by the count)."""

    maximum: Float[np.ndarray, " s"]
    quantiles: Float[np.ndarray, "s l"]
    """At `LEVELS`, linear between neighbouring values."""

    @property
    def median(self) -> Float[np.ndarray, " s"]:
        return self.quantiles[:, MEDIAN]


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    every: LatentMoments
    text: LatentMoments
    position_share: Float[np.ndarray, " s"]
    """Of a latent's variance over text tokens, zeros included, the share that lies between
    positions, less what chance would give (epsilon squared, Kelley 1935, PNAS 21: 554); around 0
    where the position tells nothing. NaN, but for latents that are never active, where the text
    cannot tell, for no position has more than one text token."""


@dataclass(frozen=True, eq=False)
class PositionMoments:
    """Of each position, over sequences and latents: active ones alone, but for the density."""

    n_tokens: Int[np.ndarray, " p"]
    count: Int[np.ndarray, " p"]
    density: Float[np.ndarray, " p"]
    """Share of all latents of all tokens at the position: its mean L0 / d_sae."""

    mean: Float[np.ndarray, " p"]
    std: Float[np.ndarray, " p"]


@dataclass(frozen=True, eq=False)
class TokenMoments:
    """Of each token, over its active latents; what positions are summed up from."""

    count: Int[np.ndarray, " n"]
    mean: Float[np.ndarray, " n"]
    squares: Float[np.ndarray, " n"]
    """Sum of squared deviations from the mean."""


def latent_statistics(columns: LatentColumns, layout: Layout) -> LatentStatistics:
    """All of an SAE's latents; holds a block of them and some numbers of each in memory."""
    _check(columns, layout)
    every, text = layout.counted(EVERY).ravel(), layout.counted(TEXT).ravel()
    n_at = layout.counted(TEXT).sum(axis=0)
    levels = np.array(LEVELS)
    found = np.zeros((2, columns.d_sae, 4 + len(LEVELS)))
    share = np.zeros(columns.d_sae)
    for block in columns.blocks():
        rows = slice(block.first, block.first + len(block.starts) - 1)
        entries = (block.starts, block.tokens, block.values)
        for out, counted in zip(found, (every, text), strict=True):
            kernels.column_moments(*entries, counted, levels, out[rows])
        kernels.position_shares(*entries, text, n_at, layout.context, share[rows])
    return LatentStatistics(
        _latent_moments(found[0], int(every.sum())),
        _latent_moments(found[1], int(text.sum())),
        share,
    )


def _latent_moments(found: Float[np.ndarray, "s c"], n_tokens: int) -> LatentMoments:
    count, mean, squares, maximum = found[:, :4].T
    return LatentMoments(
        count=count.astype(np.int64),
        density=count / max(n_tokens, 1),
        mean=mean.copy(),
        std=np.sqrt(squares / np.maximum(count, 1)),
        maximum=maximum.copy(),
        quantiles=found[:, 4:].copy(),
    )


def token_moments(latents: SparseLatents) -> TokenMoments:
    """Of each row of a batch."""
    offsets, values = latents.offsets.cpu().numpy(), latents.values.detach().float().cpu().numpy()
    is_finite = np.isfinite(values)
    if not is_finite.all():
        first = int(latents.rows.cpu().numpy()[np.flatnonzero(~is_finite)[0]])
        raise NumericsError(
            f"Latents are not finite in row {first} of {latents.n_rows}. Load the model in float32 "
            "or bfloat16."
        )
    return TokenMoments(*kernels.row_moments(offsets, values))


def position_statistics(tokens: TokenMoments, layout: Layout, d_sae: int) -> PositionMoments:
    """Sequences are merged in their order (Chan, Golub and LeVeque 1979)."""
    shape = layout.exists.shape
    if tokens.count.size != layout.exists.size:
        raise ConfigError(
            f"Moments of {tokens.count.size} tokens came for {shape[0]} sequences of {shape[1]}."
        )
    # What stands behind the end of a sequence is no token of it.
    count, mean, squares = (
        np.where(layout.exists, part.reshape(shape), 0)
        for part in (tokens.count, tokens.mean, tokens.squares)
    )
    n, centre, spread = np.zeros(shape[1], np.int64), np.zeros(shape[1]), np.zeros(shape[1])
    for q in range(shape[0]):
        total = n + count[q]
        delta, share = mean[q] - centre, count[q] / np.maximum(total, 1)
        # Where either has nothing the other is taken as it is.
        delta = np.where(count[q] > 0, delta, 0.0)
        spread = spread + squares[q] + delta**2 * n * share
        centre, n = centre + delta * share, total
    n_tokens = layout.exists.sum(axis=0)
    return PositionMoments(
        n_tokens=n_tokens,
        count=n,
        density=n / np.maximum(n_tokens * d_sae, 1),
        mean=centre,
        std=np.sqrt(spread / np.maximum(n, 1)),
    )


class PositionCoefficients(NamedTuple):
    """Of some latents, at each position, over text tokens, zeros included."""

    n_tokens: Int[np.ndarray, " p"]
    mean: Float[np.ndarray, "m p"]
    error: Float[np.ndarray, "m p"]
    """Standard error of the mean, over sequences; 0 where fewer than two have the position."""


def position_coefficients(
    columns: LatentColumns, layout: Layout, latents: Sequence[int]
) -> PositionCoefficients:
    """What a steering vector's coefficient would be if it were measured at one position alone."""
    _check(columns, layout)
    text = layout.counted(TEXT)
    n = text.sum(axis=0)
    mean, squares = (np.zeros((len(latents), layout.context)) for _ in range(2))
    for i, latent in enumerate(latents):
        block = columns.block(latent, latent + 1)
        entries = (block.starts, block.tokens, block.values)
        row = slice(i, i + 1)
        kernels.position_moments(*entries, text.ravel(), n, layout.context, mean[row], squares[row])
    # Each sequence gives one number a position, so these are over sequences.
    variance = squares / np.maximum(n - 1, 1)
    error = np.where(n > 1, np.sqrt(variance / np.maximum(n, 1)), 0.0)
    return PositionCoefficients(n, mean, error)


def _check(columns: LatentColumns, layout: Layout) -> None:
    if layout.exists.size == 0:
        raise ConfigError(
            f"Statistics need a sequence and a position, got {layout.n_sequences} sequences of "
            f"{layout.context}."
        )
    columns.check_tokens(layout.exists.size)


def count_curves(
    moments: LatentMoments, n_thresholds: int = 100
) -> tuple[Float[np.ndarray, " t"], Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Thresholds from 0 to the largest mean, and how many active latents have a median, and a mean,
    of at most each.
    """
    active = moments.count > 0
    mean, median = moments.mean[active], moments.median[active]
    thresholds = np.linspace(0.0, float(mean.max(initial=0.0)), n_thresholds)
    below = [np.searchsorted(np.sort(v), thresholds, side="right") for v in (median, mean)]
    return thresholds, below[0], below[1]
