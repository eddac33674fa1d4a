"""Which latents cause the decision, from exact effects in many game states.

The effect of a value is the change of the share of stopping among decisions, in one state. A
latent is called causal only if, in states of games that it was chosen on and of others,

1. its two population means push in opposite directions;
2. the difference between them survives Benjamini-Hochberg over all latents that were screened;
3. it is at least `min_effect`, and larger than what its controls do, which change the activation
   as much along decoders of other latents, and along random directions: among them and each kind
   of control its rank has p <= `alpha` (Monte Carlo; with 20 controls, larger than all);
4. the response follows the dose over five values between the means;
5. all of it holds again, with the same sign, in states of games that were held out.

The states are of different games, and repetitions, which share their luck, are the clusters of
tests and intervals. Every control is judged against its fellows by the same rules, with a p that
is not corrected and a replication between the halves of the held-out states. As ranks of equals
leave few of them, `passes_others`, the share that passes all rules but the rank, stands beside.

Axes: `s` states, `m` latents, `v` doses, `c` controls.
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from scipy.stats import t as student

from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.studies.gambling.settings import PatchSettings

N_DOSES = 5
MIN_STATES = 10
_MIN_RHO = 0.9
"""Least correlation of dose and response; of five doses only a monotone response reaches it."""


class Screened(NamedTuple):
    """What the states say of each latent set to its two means."""

    safe: Float[np.ndarray, "s m"]
    bankrupt: Float[np.ndarray, "s m"]
    """Change of the share of stopping, set to the mean of safe and of bankrupt games."""

    cluster: Int[np.ndarray, " s"] | None = None
    """The repetition of each state; each is its own, if not given."""


def screened_table(found: Screened) -> pl.DataFrame:
    """safe_effect, bankrupt_effect, effect (their difference) with its 95 % interval, p and q."""
    effect = found.safe - found.bankrupt
    mean, low, high, p = mean_test(effect, found.cluster)
    return pl.DataFrame(
        {
            "safe_effect": _mean(found.safe),
            "bankrupt_effect": _mean(found.bankrupt),
            "effect": mean,
            "effect_low": low,
            "effect_high": high,
            "p": p,
            "q": benjamini_hochberg(p),
        }
    )


class Doses(NamedTuple):
    """What held-out states say of the shortlist and of its controls, at doses from the mean of
    safe games to that of bankrupt ones.
    """

    latents: Float[np.ndarray, "s m v"]
    random_latents: Float[np.ndarray, "s m c v"]
    random_directions: Float[np.ndarray, "s m c v"]
    cluster: Int[np.ndarray, " s"] | None = None


def verdicts(
    shortlist: pl.DataFrame, doses: Doses, settings: PatchSettings, *, is_legible: bool
) -> pl.DataFrame:
    """The shortlist (rows of `screened_table` with hook_point and latent) with what decides."""
    ends = Screened(doses.latents[..., 0], doses.latents[..., -1], doses.cluster)
    held_out = screened_table(ends)
    names = {name: f"held_out_{name}" for name in held_out.columns}
    table = pl.concat([shortlist, held_out.rename(names)], how="horizontal")
    size = np.abs(held_out["effect"].to_numpy())
    controls = {
        "random_latents": np.abs(_effects(doses.random_latents)),
        "random_directions": np.abs(_effects(doses.random_directions)),
    }
    rho = dose_response(doses.latents)
    table = table.with_columns(
        *(pl.Series(f"{name}_95", _quantile(values, 0.95)) for name, values in controls.items()),
        *(pl.Series(f"{name}_p", rank_p(size, values)) for name, values in controls.items()),
        pl.Series("dose_rho", rho),
    )
    exceeds = np.all(
        [rank_p(size, values) <= settings.alpha for values in controls.values()], axis=0
    )
    # From safe to bankrupt the share of stopping must fall where the effect is positive.
    follows = -rho * np.sign(held_out["effect"].to_numpy()) > _MIN_RHO
    rules = {
        "is_opposite": _is_opposite(table, "") & _is_opposite(table, "held_out_"),
        "is_significant": (table["q"] < settings.alpha).fill_null(value=False).to_numpy(),
        "is_large": (table["effect"].abs() >= settings.min_effect).to_numpy(),
        "exceeds_controls": exceeds,
        "follows_dose": follows,
        "replicates": _replicates(table, settings),
    }
    is_causal = np.logical_and.reduce(list(rules.values())) & is_legible
    flags = [pl.Series(name, values) for name, values in rules.items()]
    return table.with_columns(*flags, pl.Series("is_causal", is_causal))


def control_verdicts(doses: Doses, settings: PatchSettings) -> pl.DataFrame:
    """Every control as if it were a latent, against the other controls of its latent: kind, of,
    number, effect, is_declared. Its replication is between the two halves of the states.
    """
    kinds = {
        "random latent": _effects(doses.random_latents),
        "random direction": _effects(doses.random_directions),
    }
    rows = []
    for kind, values in (
        ("random latent", doses.random_latents),
        ("random direction", doses.random_directions),
    ):
        for i in range(values.shape[1]):
            for j in range(values.shape[2]):
                fellows = [
                    np.delete(np.abs(effects[i]), j) if name == kind else np.abs(effects[i])
                    for name, effects in kinds.items()
                ]
                one = _judged(values[:, i, j], fellows, doses.cluster, settings)
                rows.append((kind, i, j, *one))
    schema = ["kind", "of", "number", "effect", "passes_others", "is_declared"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _judged(
    own: Float[np.ndarray, "s v"],
    fellows: list[Float[np.ndarray, " _"]],
    cluster: Int[np.ndarray, " s"] | None,
    settings: PatchSettings,
) -> tuple[float, bool, bool]:
    """Its effect, whether it passes all rules but the rank, and whether it passes that too."""
    half, last = len(own) // 2, N_DOSES - 1
    effect = own[:, 0] - own[:, last]
    mean = float(effect.mean())
    passes = (
        own[:, 0].mean() * own[:, last].mean() < 0
        and abs(mean) >= settings.min_effect
        and -float(dose_response(own[:, None])[0]) * np.sign(mean) > _MIN_RHO
        and half > 0
        and effect[:half].mean() * effect[half:].mean() > 0
        and float(mean_test(effect[:, None], cluster)[3][0]) < settings.alpha
    )
    ranks = [rank_p(np.array([abs(mean)]), one[None]) for one in fellows]
    is_declared = passes and all(rank[0] <= settings.alpha for rank in ranks)
    return mean, bool(passes), bool(is_declared)


def mean_test(
    values: Float[np.ndarray, "s m"], cluster: Int[np.ndarray, " s"] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, 95 % interval and p (Student's t, two-sided) over states; NaN below 10 states, and
    for what is the same in all of them. With clusters the error is that of their sums (CR1), and
    fewer than 10 of them give NaN as well.
    """
    names = np.arange(len(values)) if cluster is None else cluster
    _, index = np.unique(names, return_inverse=True)
    n, n_clusters = len(values), int(index.max(initial=-1)) + 1
    if min(n, n_clusters) < MIN_STATES:
        nothing = np.full(values.shape[1], math.nan)
        return _mean(values), nothing, nothing, nothing
    mean = values.mean(axis=0)
    sums = np.zeros((n_clusters, values.shape[1]))
    np.add.at(sums, index, (values - mean) / n)
    error = np.sqrt((sums**2).sum(axis=0) * n_clusters / (n_clusters - 1))
    reach = float(student.ppf(0.975, n_clusters - 1)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * student.sf(np.abs(mean / error), n_clusters - 1)
    # Of equal numbers the error is only almost zero.
    differs = (np.ptp(values, axis=0) > 0) & (error > 0)
    return mean, mean - reach, mean + reach, np.where(differs, p, math.nan)


def dose_response(effects: Float[np.ndarray, "s m v"]) -> Float[np.ndarray, " m"]:
    """Spearman's correlation of dose and mean effect: 1 or -1 where the response is monotone."""
    means = effects.mean(axis=0) if len(effects) else np.zeros(effects.shape[1:])
    ranks = rankdata(means, axis=-1)
    dose = np.arange(N_DOSES, dtype=float)
    dose -= dose.mean()
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    size = np.linalg.norm(dose) * np.linalg.norm(centred, axis=-1)
    flat = np.ptp(means, axis=-1) == 0
    return np.where(flat, 0.0, centred @ dose / np.maximum(size, 1e-12))


def _is_opposite(table: pl.DataFrame, prefix: str) -> Bool[np.ndarray, " m"]:
    both = table[f"{prefix}safe_effect"] * table[f"{prefix}bankrupt_effect"]
    return (both < 0).to_numpy()


def _replicates(table: pl.DataFrame, settings: PatchSettings) -> Bool[np.ndarray, " m"]:
    same = (table["effect"] * table["held_out_effect"] > 0).to_numpy()
    small = (table["held_out_q"] < settings.alpha).fill_null(value=False).to_numpy()
    large = (table["held_out_effect"].abs() >= settings.min_effect / 2).to_numpy()
    return same & small & large


def rank_p(
    size: Float[np.ndarray, " m"], controls: Float[np.ndarray, "m c"]
) -> Float[np.ndarray, " m"]:
    """The share of a latent and its controls that are at least as large as it: p where nothing
    tells it from them (Phipson and Smyth 2010).
    """
    n_as_large = (controls >= size[:, None]).sum(axis=1)
    return (1 + n_as_large) / (1 + controls.shape[1])


def _effects(values: Float[np.ndarray, "s m c v"]) -> Float[np.ndarray, "m c"]:
    if not len(values):
        return np.zeros(values.shape[1:3])
    return (values[..., 0] - values[..., -1]).mean(axis=0)


def _quantile(values: Float[np.ndarray, "m c"], share: float) -> Float[np.ndarray, " m"]:
    if values.shape[1] == 0:
        return np.full(len(values), math.inf)
    return np.quantile(values, share, axis=1)


def _mean(values: Float[np.ndarray, "s m"]) -> Float[np.ndarray, " m"]:
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], math.nan)
