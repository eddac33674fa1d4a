"""Estimates of what setting each latent would do, for all latents of all layers at once.

To first order, setting latent j from f_j to v_j changes a score s by
`(v_j - f_j) * (W_dec[j] . ds/dx)` (attribution patching; Nanda 2023, Syed et al. 2023,
arXiv:2310.10348, for latents Marks et al. 2024, arXiv:2403.19647). One backward pass serves every
latent of every hook point. With `steps`, the gradient is averaged along a path away from the
activation (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365).

How well the estimates rank the exact effects is a number of its own: `rank_agreement`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.core.intervals import Interval, resampled_interval
from fluoroscope.interventions.gradients import Score, last_position_gradients
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.base import SparseAutoencoder

Values = Mapping[HookPoint, Float[Tensor, " s"]]
"""What each latent of each hook point would be set to."""


def probability_of(tokens: Sequence[int], temperature: float = 1.0) -> Score:
    """The probability that the next token is one of these."""

    def score(logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, " rows"]:
        return (logits.double() / temperature).softmax(dim=-1)[:, list(tokens)].sum(dim=-1)

    return score


def log_odds_of(tokens: Sequence[int], temperature: float = 1.0) -> Score:
    """The logarithm of p / (1 - p), with p as in `probability_of`; it does not saturate."""

    def score(logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, " rows"]:
        scaled = logits.double() / temperature
        inside = torch.zeros(scaled.shape[-1], dtype=torch.bool, device=scaled.device)
        inside[list(tokens)] = True
        yes = scaled.masked_fill(~inside, -torch.inf).logsumexp(dim=-1)
        return yes - scaled.masked_fill(inside, -torch.inf).logsumexp(dim=-1)

    return score


def attribute(
    screen: Screen,
    saes: Mapping[HookPoint, SparseAutoencoder],
    values: Values,
    score: Score,
    steps: int = 0,
) -> dict[HookPoint, Float[Tensor, " s"]]:
    """The estimated change of `score` for each latent set alone to its value.

    Costs one forward and backward pass of a single token; with `steps` one more with
    `steps * len(saes)` rows. The path of integrated gradients goes along the sum of all changes
    of a hook point, as far as a single change goes in the median.
    """
    points = sorted(saes)
    _check(saes, values)
    first = last_position_gradients(screen, points, score)
    changes = {
        point: _changes(saes[point], first.activations[point][0], values[point]) for point in points
    }
    gradients = {point: first.gradients[point][0] for point in points}
    if steps:
        gradients = _integrated(screen, saes, changes, score, steps)
    return {
        point: changes[point] * (saes[point].W_dec.detach() @ gradients[point].to(changes[point]))
        for point in points
    }


def rank_agreement(
    exact: Float[Tensor, " effects"], estimate: Float[Tensor, " effects"], seed: int = 0
) -> pl.DataFrame:
    """How well estimates rank exact effects: name, value, low, high (95 %, over latents), n.

    Spearman's rho of signed effects; the share of the ten, and of the tenth, that are strongest
    in truth and are among as many that are estimated to be strongest (no interval: the set is
    one); the share with the right sign among the strongest tenth.
    """
    true, guess = (numbers.double().cpu().numpy() for numbers in (exact, estimate))
    n = len(true)
    if n < 3 or len(guess) != n:
        raise InterventionError(
            f"Needs three effects and as many estimates; got {n}, {len(guess)}."
        )

    def rho(rows: np.ndarray) -> float:
        if np.ptp(true[rows]) == 0 or np.ptp(guess[rows]) == 0:
            # Without differences there is no order.
            return math.nan
        # Spearman's coefficient is Pearson's of the ranks, ties sharing their mean rank.
        return float(np.corrcoef(rankdata(true[rows]), rankdata(guess[rows]))[0, 1])

    tenth = max(1, n // 10)
    strongest = np.argsort(-np.abs(true), kind="stable")[:tenth]
    right = float(np.mean(np.sign(true[strongest]) == np.sign(guess[strongest])))
    measured = {
        "spearman": resampled_interval(rho, n, seed),
        "right sign in the strongest tenth": Interval(right, math.nan, math.nan),
    }
    for name, k in (
        ("found of the strongest 10", min(10, n)),
        ("found of the strongest tenth", tenth),
    ):
        both = _strongest(true, k) & _strongest(guess, k)
        measured[name] = Interval(len(both) / k, math.nan, math.nan)
    rows = [(name, *interval, n) for name, interval in measured.items()]
    return pl.DataFrame(rows, schema=["name", "value", "low", "high", "n"], orient="row")


def _strongest(effects: np.ndarray, k: int) -> set[int]:
    return set(np.argsort(-np.abs(effects), kind="stable")[:k].tolist())


def _changes(
    sae: SparseAutoencoder, x: Float[Tensor, " d_model"], values: Float[Tensor, " s"]
) -> Float[Tensor, " s"]:
    with torch.no_grad():
        return values.to(sae.W_dec) - sae.encode(x.to(sae.W_dec))


def _integrated(
    screen: Screen,
    saes: Mapping[HookPoint, SparseAutoencoder],
    changes: Mapping[HookPoint, Float[Tensor, " s"]],
    score: Score,
    steps: int,
) -> dict[HookPoint, Float[Tensor, " d_model"]]:
    """The mean gradient on each hook point's own path; every step of every path is a row."""
    points = sorted(saes)
    ways = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    offsets: dict[HookPoint, Tensor] = {}
    for number, point in enumerate(points):
        path = _path(saes[point], changes[point])
        rows = path.new_zeros(steps * len(points), len(path))
        rows[number * steps : (number + 1) * steps] = ways.to(path)[:, None] * path
        offsets[point] = rows
    found = last_position_gradients(screen, points, score, offsets).gradients
    return {
        point: found[point][number * steps : (number + 1) * steps].mean(dim=0)
        for number, point in enumerate(points)
    }


def _path(sae: SparseAutoencoder, changes: Float[Tensor, " s"]) -> Float[Tensor, " d_model"]:
    W_dec = sae.W_dec.detach()
    lengths = changes.abs() * W_dec.norm(dim=-1)
    together = changes @ W_dec
    typical = lengths[lengths > 0].median() if bool((lengths > 0).any()) else lengths.sum()
    return together / together.norm().clamp(min=1e-12) * typical


def _check(saes: Mapping[HookPoint, SparseAutoencoder], values: Values) -> None:
    if not saes:
        raise InterventionError("No SAE was given: there are no latents to attribute to.")
    for point, sae in saes.items():
        if point not in values or values[point].shape != (sae.d_sae,):
            raise InterventionError(
                f"values must have one number for each of the {sae.d_sae} latents at {point}."
            )
        if sae.hook_point not in (None, point):
            raise InterventionError(f"The SAE given for {point} is one of {sae.hook_point}.")
