"""What scores of layers foretold of a full sweep: one data set, every layer trained.

`tau` is Kendall's tau-b between scores and accuracies; `regret` is the accuracy of the best layer
less that of the chosen one. Intervals draw test samples again, the same for all layers, and seeds.

The best of many noisy layers looks better than it is, and so does any regret. `regret_crossed` is
free of that: the best layer is taken on one half of the test samples and compared on the other,
by many halvings. It may be negative, which says that no layer is known to be better.

Axes: layers, seeds of trainings, n test samples.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.core.seeding import stream

_TAILS = (0.025, 0.975)
_N_HALVINGS = 200
_MIN_GAP = 2.0
"""Standard errors by which the best layer must beat the last for the gap to be a number."""


def sweep_agreement(
    accuracy: Float[np.ndarray, "layers seeds"],
    scores: Mapping[str, Float[np.ndarray, "_"]],
    seed: int,
    *,
    choices: Mapping[str, int] | None = None,
    is_right: Bool[np.ndarray, "layers seeds n"] | None = None,
    n_resamples: int = 1000,
) -> pl.DataFrame:
    """A row a method: those of `scores` take their best layer, those of `choices` the given one;
    `last`, `middle` and `random` (a layer drawn evenly, in expectation) stand beside them.

    Columns: `method`, `layer`, `accuracy`; `tau`, `regret`, `regret_crossed`, the first two with
    `_low` and `_high`; `gap_recovered`, the share of the gap between the last and the best layer,
    null unless that gap is above two standard errors. Without `is_right` the seeds are the units,
    and there are no ends where they are fewer than 10.
    """
    _check(accuracy, scores, choices or {})
    n_layers = len(accuracy)
    mean = accuracy.mean(axis=1)
    draws = _resampled(accuracy, is_right, seed, n_resamples)
    halves = _halvings(accuracy, is_right, seed)
    best, last = int(mean.argmax()), n_layers - 1
    gap = float(mean[best] - mean[last])
    is_known = draws is not None and gap > _MIN_GAP * float((draws[:, best] - draws[:, last]).std())
    chosen = {name: _best(one) for name, one in scores.items()}
    chosen |= {"last": last, "middle": n_layers // 2, **(choices or {})}
    rows = []
    for name, layer in {**chosen, "random": None}.items():
        # What an even draw would have is the mean over layers.
        weights = np.full(n_layers, 1 / n_layers) if layer is None else np.eye(n_layers)[layer]
        tau = _with_ends(*_taus(scores.get(name), mean, draws))
        lost = np.eye(n_layers)[best] - weights
        regret = _with_ends(float(mean @ lost), None if draws is None else draws @ lost)
        rows.append(
            {
                "method": name,
                "layer": layer,
                "accuracy": float(mean @ weights),
                **dict(zip(("tau", "tau_low", "tau_high"), tau, strict=True)),
                **dict(zip(("regret", "regret_low", "regret_high"), regret, strict=True)),
                "regret_crossed": _crossed(halves, weights),
                "gap_recovered": float(mean @ weights - mean[last]) / gap if is_known else None,
            }
        )
    kinds = dict.fromkeys(rows[0], pl.Float64) | {"method": pl.String, "layer": pl.Int64}
    return pl.DataFrame(rows, schema=kinds).fill_nan(None)


def kendall_tau(
    scores: Float[np.ndarray, " layers"], others: Float[np.ndarray, "draws layers"]
) -> Float[np.ndarray, " draws"]:
    """Tau-b of `scores` with each row; NaN where either is constant."""
    first, second = np.triu_indices(len(scores), k=1)
    own = np.sign(scores[first] - scores[second])
    theirs = np.sign(others[:, first] - others[:, second])
    size = np.sqrt((own != 0).sum() * (theirs != 0).sum(axis=1))
    return np.divide(theirs @ own, size, out=np.full(len(others), np.nan), where=size > 0)


def _taus(
    scores: np.ndarray | None, mean: np.ndarray, draws: np.ndarray | None
) -> tuple[float, np.ndarray | None]:
    """Over the layers that were scored."""
    if scores is None:
        return np.nan, None
    kept = np.isfinite(scores)
    value = float(kendall_tau(scores[kept], mean[None, kept])[0])
    return value, None if draws is None else kendall_tau(scores[kept], draws[:, kept])


def _with_ends(value: float, draws: np.ndarray | None) -> tuple[float, float, float]:
    if draws is None or np.isnan(value) or np.isnan(draws).all():
        return value, np.nan, np.nan
    low, high = np.nanquantile(draws, _TAILS)
    return value, float(low), float(high)


def _resampled(
    accuracy: np.ndarray, is_right: np.ndarray | None, seed: int, n_resamples: int
) -> Float[np.ndarray, "draws layers"] | None:
    """Accuracies of layers with test samples and seeds drawn again; None of too few units."""
    n_seeds = accuracy.shape[1]
    random = stream(seed, "sweep", "bootstrap")
    seeds = random.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_resamples) / n_seeds
    if is_right is None:
        return seeds @ accuracy.T if n_seeds >= MIN_UNITS else None
    n = is_right.shape[2]
    if n < MIN_UNITS:
        return None
    draws = np.empty((n_resamples, len(accuracy)))
    right = is_right.reshape(-1, n).astype(np.float32)
    # In parts: a count for each draw and sample is large.
    for part in np.array_split(np.arange(n_resamples), -(-n_resamples // 100)):
        counts = random.multinomial(n, np.full(n, 1 / n), len(part)).astype(np.float32)
        shares = (right @ counts.T).reshape(*accuracy.shape, len(part)) / n
        draws[part] = np.einsum("lsb,bs->bl", shares, seeds[part])
    return draws


def _halvings(
    accuracy: np.ndarray, is_right: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Accuracies of layers in one half of the units and in the other, [halvings, layers]; None
    of fewer than two.
    """
    units = accuracy if is_right is None else is_right.mean(axis=1)
    n = units.shape[1]
    if n < 2:
        return None
    random = stream(seed, "sweep", "halves")
    is_first = random.permuted(np.tile(np.arange(n) < n // 2, (_N_HALVINGS, 1)), axis=1)
    first = is_first @ units.T / is_first.sum(axis=1, keepdims=True)
    second = ~is_first @ units.T / (~is_first).sum(axis=1, keepdims=True)
    return first, second


def _crossed(halves: tuple[np.ndarray, np.ndarray] | None, weights: np.ndarray) -> float:
    if halves is None:
        return np.nan
    lost = []
    for one, other in (halves, halves[::-1]):
        best = other[np.arange(len(other)), one.argmax(axis=1)]
        lost.append(best - other @ weights)
    return float(np.mean(lost))


def _best(scores: np.ndarray) -> int:
    return int(np.where(np.isfinite(scores), scores, -np.inf).argmax())


def _check(
    accuracy: np.ndarray,
    scores: Mapping[str, np.ndarray],
    choices: Mapping[str, int],
) -> None:
    n_layers = len(accuracy)
    if n_layers < 2 or not np.isfinite(accuracy).all():
        raise ConfigError("A sweep has two layers or more, each with an accuracy of every seed.")
    for name, one in scores.items():
        if len(one) != n_layers or not np.isfinite(one).any():
            raise ConfigError(
                f"Scores of {name} must be {n_layers}, one at least finite; got {len(one)}."
            )
    wrong = {name: layer for name, layer in choices.items() if not 0 <= layer < n_layers}
    if wrong:
        raise ConfigError(f"Layers are 0 to {n_layers - 1}; got choices {wrong}.")
