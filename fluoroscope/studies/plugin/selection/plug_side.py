"""What the weights of a layer do to the vectors that are plugged into it.

Scores of texts look at what layers 0 to l made of text. What is plugged in is layer l alone, and
it reads a vector of the encoder. So pooled vectors `p` go through `u = s Q p` and the layer, and
`b = layer(u) - u` is what it adds: Q is a random map that keeps lengths and angles, s gives `u`
the root mean square of what the layer reads at home. The score is how much better labels are told
from `[p, b]` than from `p`. Both blocks are brought to one size, so that a layer that merely
writes more gains nothing by it.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.studies.plugin.selection.transferability import logme, loo_ridge, spectrum

LayerMap = Callable[[Tensor], Tensor]
"""One vector in, one out, for any leading axes: a `OneTokenLayer`."""

_ROWS = 512
"""Rows that go through a layer at once."""


class PlugScores(NamedTuple):
    """Means over the draws of Q."""

    logme: Float[np.ndarray, " layers"]
    """What log evidence a row gains, in nats."""

    logme_se: Float[np.ndarray, " layers"]
    """Over draws."""

    loo: Float[np.ndarray, " layers"]
    """By how many nats a row's leave-one-out NLL falls."""

    loo_se: Float[np.ndarray, " layers"]
    """Over draws and rows."""


def plug_scores(
    pooled: Float[Tensor, "n d"],
    labels: Int[np.ndarray, " n"],
    layers: Iterable[LayerMap],
    input_rms: Float[np.ndarray, " layers"],
    d_layer: int,
    seed: int,
    *,
    n_draws: int = 3,
    sink: Sink = SILENT,
) -> PlugScores:
    """`layers` are asked for one at a time, and none is kept; `pooled` lies where they run.

    Raises `ConfigError` where there are not as many layers as `input_rms`.
    """
    own = _block(pooled.double().cpu().numpy())
    alone = spectrum(own)
    alone_logme, alone_nll = logme(alone, labels), loo_ridge(alone, labels).nll
    maps = [semi_orthogonal(d_layer, pooled.shape[1], seed, draw) for draw in range(n_draws)]
    found = []
    for layer, run in enumerate(layers):
        if layer == len(input_rms):
            raise ConfigError(f"There are more layers than the {layer} of input_rms.")
        gains, evidence = np.zeros((n_draws, len(labels))), np.zeros(n_draws)
        for draw, to_layer in enumerate(maps):
            added = branch(run, pooled, to_layer, float(input_rms[layer]))
            if not np.isfinite(added).all():
                raise NumericsError(f"What layer {layer} adds is not finite; run it in float32.")
            both = spectrum(np.concatenate([own, _block(added)], axis=1))
            evidence[draw] = logme(both, labels) - alone_logme
            gains[draw] = alone_nll - loo_ridge(both, labels).nll
        by_row = gains.mean(axis=0)
        of_draws = _squared_error(gains.mean(axis=1))
        found.append(
            (
                evidence.mean(),
                _squared_error(evidence) ** 0.5,
                by_row.mean(),
                (of_draws + _squared_error(by_row)) ** 0.5,
            )
        )
        sink.progress(layer + 1, len(input_rms), "layers")
    if len(found) < len(input_rms):
        raise ConfigError(f"{len(found)} layers were given for {len(input_rms)} of input_rms.")
    return PlugScores(*np.array(found).T)


@torch.no_grad()
def branch(
    layer: LayerMap,
    pooled: Float[Tensor, "n d"],
    to_layer: Float[Tensor, "d_layer d"],
    input_rms: float,
) -> Float[np.ndarray, "n d_layer"]:
    """What the layer adds to mapped vectors, in float64."""
    mapped = pooled.float() @ to_layer.to(pooled.device).T
    mapped = mapped * (input_rms / mapped.square().mean(dim=1).sqrt().median())
    added = [layer(part) - part for part in mapped.split(_ROWS)]
    return torch.cat(added).double().cpu().numpy()


def semi_orthogonal(n_rows: int, n_columns: int, seed: int, draw: int) -> Tensor:
    """A random matrix [rows, columns], the shorter side of which is orthonormal."""
    shape = (max(n_rows, n_columns), min(n_rows, n_columns))
    normal = torch.randn(shape, generator=torch_stream(seed, "map", draw), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    # Signs that make it uniform (Mezzadri 2007, arXiv:math-ph/0609050).
    q = (q * r.diagonal().sign()).float()
    return q if n_rows >= n_columns else q.T


def _block(rows: np.ndarray) -> np.ndarray:
    """Centred, of mean squared length 1; what is constant becomes 0."""
    centred = rows - rows.mean(axis=0)
    size = float((centred**2).sum(axis=1).mean()) ** 0.5
    if size <= 1e-9 * float(np.abs(rows).max()):
        return np.zeros_like(rows)
    return centred / size


def _squared_error(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
