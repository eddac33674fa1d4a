"""What scores of layers foretold of a full sweep: one data set, every layer trained.

`tau` is Kendall's tau-b between scores and accuracies; `regret` is the accuracy of the best layer
less that of the chosen one. Intervals draw groups of test samples again, the same for all layers,
and seeds (`comparing.Draws`). They take the layers as they are: which one is best is not drawn.

The best of many noisy layers looks better than it is, and so does any regret. `regret_crossed`
takes the best layer on one half of the seeds and of the groups of test samples, and compares on
the other half of both, by many halvings; where layers are alike it is 0 in the mean, by noise on
either side of it. It is a low guess, as half of the trainings find the best layer less often. With
one seed only samples are halved, and a layer with a lucky training stays lucky in it. A
method that trains with one of the seeds, as halving does, may share that one's luck.

Axes: layers, seeds of trainings, n test samples, groups of them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.core.seeding import stream
from fluoroscope.interventions.replies.comparing import group_numbers
from fluoroscope.steps.comparing_arms import Draws
from fluoroscope.studies.plugin.form import middle_layer

_TAILS = (0.025, 0.975)
_N_HALVINGS = 200
_MIN_GAP = 2.0
"""Standard errors by which the best layer must beat the last for the gap to be a number."""

_NO_ENDS = "the best layer seen: its regret is 0 by construction"


def sweep_agreement(
    accuracy: Float[np.ndarray, "layers seeds"],
    scores: Mapping[str, Float[np.ndarray, "_"]],
    seed: int,
    *,
    choices: Mapping[str, int] | None = None,
    is_right: Bool[np.ndarray, "layers seeds n"] | None = None,
    groups: Sequence[str] | None = None,
    n_resamples: int = 1000,
) -> pl.DataFrame:
    """A row a method: those of `scores` take their best layer, those of `choices` the given one;
    `last`, `middle` and `random` (a layer drawn evenly, in expectation) stand beside them.

    Columns: `method`, `layer`, `accuracy`; `tau`, `regret`, `regret_crossed`, the first two with
    `_low` and `_high`; `gap_recovered`, the share of the gap between the last and the best layer,
    null unless that gap is above two standard errors; `note`, why a regret has no ends. `groups`
    says which test samples belong together; without it each stands for itself. Without `is_right`
    the seeds are the units. There are no ends where units are fewer than 10.
    """
    _check(accuracy, scores, choices or {})
    n_layers = len(accuracy)
    mean = accuracy.mean(axis=1)
    units = _Units.of(accuracy, is_right, groups)
    draws = _resampled(units, seed, n_resamples)
    halves = _halvings(units, seed)
    best, last = int(mean.argmax()), n_layers - 1
    gap = float(mean[best] - mean[last])
    is_known = draws is not None and gap > _MIN_GAP * float((draws[:, best] - draws[:, last]).std())
    chosen = {name: _best(one) for name, one in scores.items()}
    chosen |= {"last": last, "middle": middle_layer(n_layers), **(choices or {})}
    rows = []
    for name, layer in {**chosen, "random": None}.items():
        # What an even draw would have is the mean over layers.
        weights = np.full(n_layers, 1 / n_layers) if layer is None else np.eye(n_layers)[layer]
        tau = _with_ends(*_taus(scores.get(name), mean, draws))
        lost = np.eye(n_layers)[best] - weights
        known = None if draws is None or layer == best else draws @ lost
        regret = _with_ends(float(mean @ lost), known)
        rows.append(
            {
                "method": name,
                "layer": layer,
                "accuracy": float(mean @ weights),
                **dict(zip(("tau", "tau_low", "tau_high"), tau, strict=True)),
                **dict(zip(("regret", "regret_low", "regret_high"), regret, strict=True)),
                "regret_crossed": _crossed(halves, weights),
                "gap_recovered": float(mean @ weights - mean[last]) / gap if is_known else None,
                "note": _NO_ENDS if layer == best and draws is not None else None,
            }
        )
    kinds = dict.fromkeys(rows[0], pl.Float64) | {"method": pl.String, "layer": pl.Int64}
    kinds["note"] = pl.String
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


class _Units(NamedTuple):
    """What is drawn again and halved: groups of test samples, and seeds."""

    which: Sequence[str]
    """Group of each sample."""

    totals: Float[np.ndarray, "layers seeds groups"]
    """Right answers."""

    sizes: Int[np.ndarray, " groups"]

    @classmethod
    def of(
        cls, accuracy: np.ndarray, is_right: np.ndarray | None, groups: Sequence[str] | None
    ) -> Self:
        if is_right is None:
            return cls(["all"], accuracy[:, :, None], np.ones(1, dtype=np.int64))
        n = is_right.shape[2]
        which = [f"{number:09d}" for number in range(n)] if groups is None else groups
        if len(which) != n:
            raise ConfigError(f"Each of {n} test samples has a group; got {len(which)} groups.")
        number = group_numbers(which)
        sizes = np.bincount(number)
        rows = [np.bincount(number, row) for row in is_right.reshape(-1, n)]
        return cls(which, np.reshape(rows, (*accuracy.shape, len(sizes))), sizes)


def _resampled(
    units: _Units, seed: int, n_resamples: int
) -> Float[np.ndarray, "draws layers"] | None:
    """Accuracies of layers with groups and seeds drawn again; None of too few units."""
    n_layers, n_seeds, n_groups = units.totals.shape
    # Without test samples there is one group, and seeds are the units.
    if (n_groups if len(units.which) > 1 else n_seeds) < MIN_UNITS:
        return None
    columns = np.concatenate([units.totals.reshape(-1, n_groups), units.sizes[None]])
    parts = []
    for sums, weights in Draws(units.which, n_seeds, seed, n_resamples).taken(columns.T):
        shares = (sums[:, :-1] / sums[:, -1:]).reshape(len(sums), n_layers, n_seeds)
        parts.append(np.einsum("bls,bs->bl", shares, weights))
    return np.concatenate(parts)


def _halvings(units: _Units, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Accuracies of layers in one half of the units and in the other, [halvings, layers]; None
    where there is one training and one group. What there is one of is in both halves.
    """
    n_layers, n_seeds, n_groups = units.totals.shape
    if max(n_seeds, n_groups) < 2:
        return None
    random = stream(seed, "sweep", "halves")
    seeds, groups = _halves_of(n_seeds, random), _halves_of(n_groups, random)
    table = units.totals.reshape(-1, n_groups)
    found = []
    for of_seeds, of_groups in zip(seeds, groups, strict=True):
        right = (of_groups @ table.T).reshape(_N_HALVINGS, n_layers, n_seeds)
        shares = right / (of_groups @ units.sizes)[:, None, None]
        weights = of_seeds / of_seeds.sum(axis=1, keepdims=True)
        found.append(np.einsum("hls,hs->hl", shares, weights))
    return found[0], found[1]


def _halves_of(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which of `n` are in the first half and which in the second, [halvings, n]."""
    is_first = random.permuted(np.tile(np.arange(n) < n // 2, (_N_HALVINGS, 1)), axis=1)
    if n < 2:
        return ~is_first * 1.0, ~is_first * 1.0
    return is_first * 1.0, ~is_first * 1.0


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
