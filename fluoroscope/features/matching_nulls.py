"""How high the highest of many cosines is where there is nothing to be found.

Of `m` random directions in `d` dimensions one is always nearest, and not by little: at about
sqrt(2 ln m / d). Two nulls are drawn. *Random* directions know nothing of either SAE; a *rotated*
copy of the other SAE keeps all angles among its own latents, and so how crowded it is, but points
elsewhere. Both lose that real SAEs live where the activations do, which alone brings their
directions nearer: a match above these nulls is not a match by chance of many draws, and no more.

Axes: r and q sampled latents of the two sides over all draws, d model width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from scipy.special import betainc, betaincinv

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.features.top_matches import Directions, top_matches

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(256)
_LOG_NEVER = -40.0
"""Logarithm of a probability that is as good as none."""


@dataclass(frozen=True, eq=False)
class NullMatches:
    """The highest cosine of sampled latents where nothing is shared."""

    of_a: Float32[np.ndarray, " r"]
    of_b: Float32[np.ndarray, " q"]


def random_null(
    n_a: int, n_b: int, d_model: int, seed: int, n_draws: int = 3, n_rows: int = 2048
) -> NullMatches:
    """Of random directions, as many as both SAEs have; at most `n_rows` latents of a side a draw,
    against all of the other.
    """
    found: list[NullMatches] = []
    for draw in range(n_draws):
        a = random_directions(n_a, d_model, seed, "a", draw)
        b = random_directions(n_b, d_model, seed, "b", draw)
        found.append(_highest(a, b, n_rows, seed, draw))
    return _joined(found)


def rotated_null(
    a: Directions, b: Directions, seed: int, n_draws: int = 1, n_rows: int = 2048
) -> NullMatches:
    """Of `a` and randomly rotated copies of `b`."""
    found: list[NullMatches] = []
    for draw in range(n_draws):
        turned = torch.from_numpy(b.rows) @ torch.from_numpy(random_rotation(b.width, seed, draw))
        found.append(_highest(a, Directions.of(turned), n_rows, seed, draw))
    return _joined(found)


def random_directions(n: int, d_model: int, seed: int, *names: str | int) -> Directions:
    """`n` directions drawn evenly from the sphere."""
    random = stream(seed, "matching", "random directions", *names)
    return Directions.of(torch.from_numpy(random.standard_normal((n, d_model), np.float32)))


def random_rotation(d_model: int, seed: int, *names: str | int) -> Float32[np.ndarray, "d d"]:
    """An orthogonal matrix, all equally likely (Mezzadri 2007)."""
    random = stream(seed, "matching", "rotation", *names)
    q, r = np.linalg.qr(random.standard_normal((d_model, d_model)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


def expected_maximum(m: int, d_model: int) -> float:
    """The mean of the highest of `m` cosines of one direction with random ones.

    A cosine t is 2 x - 1 with x of Beta((d - 1) / 2, (d - 1) / 2), and the mean of the maximum
    1 - integral of F(t)^m over all t; exact but for the quadrature (1e-9).
    """
    _check(m, d_model)
    # Below `low` the power is nothing, above `high` it is one.
    low, high = _quantile(-_LOG_NEVER / m, d_model), _quantile(np.exp(_LOG_NEVER) / m, d_model)
    # Over the angle: in two dimensions the density of the cosine is infinite at its ends.
    widest, narrowest = np.arccos(low), np.arccos(high)
    angle = narrowest + (widest - narrowest) * (_NODES + 1) / 2
    with np.errstate(divide="ignore"):  # No cosine is below -1: the logarithm of none.
        power = np.exp(m * np.log1p(-_above(np.cos(angle), d_model)))
    below = (_WEIGHTS * power * np.sin(angle)).sum()
    return float(high - (widest - narrowest) / 2 * below)


def approximate_maximum(m: int, d_model: int) -> float:
    """sqrt(2 ln m / d): the same for m and d that are large; above the mean, for it drops terms."""
    _check(m, d_model)
    return float((2 * np.log(m) / d_model) ** 0.5)


def chance_above(threshold: float, m: int, d_model: int) -> float:
    """How likely the highest of `m` cosines with random directions is above the threshold."""
    _check(m, d_model)
    above = float(_above(np.array(threshold), d_model))
    return float(-np.expm1(m * np.log1p(-above))) if above < 1 else 1.0


def _above(t: np.ndarray, d_model: int) -> np.ndarray:
    """How likely one cosine is above t: by symmetry how likely it is below -t, which keeps small
    numbers exact.
    """
    half = (d_model - 1) / 2
    return np.asarray(betainc(half, half, (1 - t) / 2))


def _quantile(above: float, d_model: int) -> float:
    """The cosine above which one is with this probability."""
    half = (d_model - 1) / 2
    return float(1 - 2 * betaincinv(half, half, min(1.0, above)))


def _highest(a: Directions, b: Directions, n_rows: int, seed: int, draw: int) -> NullMatches:
    if len(a) <= n_rows and len(b) <= n_rows:
        both = top_matches(a, b, 1)
        return NullMatches(_live(a, both.of_a.cosines), _live(b, both.of_b.cosines))
    some_a, some_b = (_some(one, n_rows, seed, draw) for one in (a, b))
    of_a, of_b = top_matches(some_a, b, 1).of_a, top_matches(some_b, a, 1).of_a
    return NullMatches(_live(some_a, of_a.cosines), _live(some_b, of_b.cosines))


def _some(a: Directions, n_rows: int, seed: int, draw: int) -> Directions:
    if len(a) <= n_rows:
        return a
    random = stream(seed, "matching", "sampled rows", draw)
    chosen = np.sort(random.choice(len(a), n_rows, replace=False))
    return Directions(a.rows[chosen], np.arange(n_rows, dtype=np.int32), n_rows)


def _live(a: Directions, cosines: np.ndarray) -> np.ndarray:
    return cosines[a.latents, 0]


def _joined(found: list[NullMatches]) -> NullMatches:
    if not found:
        raise ConfigError("A null needs at least 1 draw, got 0.")
    return NullMatches(
        np.concatenate([one.of_a for one in found]), np.concatenate([one.of_b for one in found])
    )


def _check(m: int, d_model: int) -> None:
    if m < 1 or d_model < 2:
        raise ConfigError(
            f"The highest cosine is of 1 direction or more in 2 dimensions or more, got {m} in "
            f"{d_model}."
        )
