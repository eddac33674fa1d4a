"""Is a correlation more than chance, how sure is it, and would the same latent be picked again?

- `p_values`: of each latent alone, by Student's t, by counting shuffles, and by the first three
  moments that r has over shuffles. The last holds where a latent is rare and the outcome lopsided,
  as of a hard task, where t finds far too much, and reaches further than k shuffles can count.
- `null_maxima`: the largest |r| of each shuffle, of a layer and of all: what picking alone does.
- `intervals`: Fisher's z for rows that are independent, else the bootstrap over groups.
- `pick_stability`: how often a resample picks the same latent.

Axes: `d_sae` latents, `k` shuffles, `b` resamples.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from scipy.special import stdtr, stdtrit
from scipy.stats import norm, pearson3

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation import OutcomeMoments

MIN_ACTIVE = 10
"""Samples in which a latent must be active to be tested and picked along with the others."""

MIN_SHUFFLES = 20
"""Shuffles from which the spread of r is taken, where rows come in groups."""

ALL = "all"
"""In place of a hook point: all of them together."""

Sign = Literal["positive", "negative", "either"]


class PValues(NamedTuple):
    """Two-sided (twice the smaller tail, where tails differ); NaN for what does not vary."""

    t: Float[np.ndarray, " d_sae"]
    """Student's t with n - 2 degrees of freedom, as `scipy.stats.pearsonr`. It takes rows as
    independent and trusts the normal distribution.
    """

    shuffled: Float[np.ndarray, " d_sae"]
    """Share of shuffles, the observed order being one, with an |r| at least as large."""

    moments: Float[np.ndarray, " d_sae"]
    """By a Pearson type III distribution with the variance and skewness of r over shuffles (Pitman
    1937; Mielke and Berry 2007): exact moments where rows are independent. Where they come in
    groups the variance is that of the k shuffles, not below that of independent rows, and the
    skewness grows with its root, as if groups were rows.
    """


def p_values(moments: OutcomeMoments) -> PValues:
    """Of every latent of a hook point, tested or not."""
    r, n = moments.pearson(), moments.n
    is_known = ~np.isnan(r)
    t = np.full(len(r), np.nan)
    if n > 2:
        with np.errstate(divide="ignore"):
            scaled = np.abs(r[is_known]) * np.sqrt((n - 2) / (1 - r[is_known] ** 2))
        t[is_known] = 2 * stdtr(n - 2, -scaled)
    shuffled, inflation = _from_shuffles(moments, r)
    z = r * np.sqrt((n - 1) / inflation)
    skewness = moments.skewness() * np.sqrt(inflation)
    return PValues(t, shuffled, _two_sided(z, skewness))


def null_maxima(
    found: Mapping[str, OutcomeMoments], min_active: int = MIN_ACTIVE, sign: Sign = "either"
) -> pl.DataFrame:
    """hook_point (each, and `ALL`), permutation and `largest` r of the tested latents.

    With `sign` either, of |r|; with positive of r, with negative of -r.
    """
    parts = []
    for point, moments in found.items():
        chosen = is_tested(moments, min_active)
        largest = np.zeros(moments.outcomes.n_shuffles)
        for block in _blocks(len(chosen)):
            r = signed(moments.shuffled_pearson(block)[chosen[block]], sign)
            largest = np.fmax(largest, np.fmax.reduce(r, axis=0, initial=0.0))
        parts.append((point, largest))
    if not parts:
        raise ConfigError("There is nothing to correlate: no hook point was given.")
    parts.append((ALL, np.max([largest for _, largest in parts], axis=0)))
    return pl.concat(
        pl.DataFrame(
            {
                "hook_point": [point] * len(largest),
                "permutation": np.arange(len(largest)),
                "largest": largest,
            }
        )
        for point, largest in parts
    )


def family_wise(
    r: Float[np.ndarray, " d_sae"], null: pl.DataFrame, point: str = ALL
) -> Float[np.ndarray, " d_sae"]:
    """A p of each |r| that holds for all latents of `point` at once (Westfall and Young 1993):

    the share of shuffles, the observed order being one, whose largest is at least as large.
    """
    largest = np.sort(null.filter(pl.col("hook_point") == point)["largest"].to_numpy())
    if not len(largest):
        return np.full(len(r), np.nan)
    value = np.abs(r)
    n_as_large = len(largest) - np.searchsorted(largest, value - _TIE * value, side="left")
    return np.where(np.isnan(r), np.nan, (n_as_large + 1) / (len(largest) + 1))


class Intervals(NamedTuple):
    """95 %; NaN where they cannot be told."""

    low: Float[np.ndarray, " d_sae"]
    high: Float[np.ndarray, " d_sae"]


def intervals(moments: OutcomeMoments) -> Intervals:
    """Of every r, on the scale of Fisher's z = artanh r.

    Of latents that are resampled, z -+ t times the spread of z over resamples of whole groups, t
    with one degree of freedom less than there are resamples; it needs 20 resamples. Of others
    1.96 / sqrt(n - 3), where rows are independent. An r of 1 or -1 has none.
    """
    r, n = moments.pearson(), moments.n
    with np.errstate(divide="ignore"):
        z = np.arctanh(r)
    alone = not moments.outcomes.is_grouped and n > 3
    reach = np.full(len(r), _NORMAL / (n - 3) ** 0.5 if alone else np.nan)
    n_resamples = moments.outcomes.n_resamples
    if n_resamples >= MIN_SHUFFLES and len(moments.resampled):
        reach[moments.resampled] = stdtrit(n_resamples - 1, 0.975) * _spread(moments)
    reach[~np.isfinite(z)] = np.nan
    return Intervals(np.tanh(z - reach), np.tanh(z + reach))


def pick_stability(
    found: Mapping[str, OutcomeMoments], min_active: int = MIN_ACTIVE, sign: Sign = "positive"
) -> pl.DataFrame:
    """hook_point, latent and `share`: in how many resamples it has the largest r of its layer.

    Then the same over all layers, `share_overall`. Only latents that are resampled compete; those
    that are never picked are left out. Ties go to the first.
    """
    best, who, points = [], [], list(found)
    for moments in found.values():
        chosen = is_tested(moments, min_active)[moments.resampled]
        latents = moments.resampled[chosen]
        r = signed(moments.resampled_pearson()[chosen], sign)
        r = np.where(np.isnan(r), -np.inf, r)
        if not r.size:
            raise ConfigError(
                "No pick can be drawn again: no latent is resampled and active in "
                f"{min_active} samples, or there are no resamples."
            )
        best.append(r.max(axis=0))
        who.append(latents[r.argmax(axis=0)])
    overall = np.argmax(best, axis=0)
    rows = []
    for i, point in enumerate(points):
        is_pick = np.isfinite(best[i])
        for latent in np.unique(who[i][is_pick]):
            is_it = (who[i] == latent) & is_pick
            shares = is_it.mean(), (is_it & (overall == i)).mean()
            rows.append((point, int(latent), *map(float, shares)))
    schema = {
        "hook_point": pl.String,
        "latent": pl.Int64,
        "share": pl.Float64,
        "share_overall": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    order = pl.col("hook_point").replace_strict(points, range(len(points)), return_dtype=pl.Int64)
    return frame.sort(order, pl.col("share"), "latent", descending=[False, True, False])


def is_tested(moments: OutcomeMoments, min_active: int) -> Bool[np.ndarray, " d_sae"]:
    """Latents that vary and are active often enough; this never looks at outcomes."""
    return (moments.active >= min_active) & ~np.isnan(moments.pearson())


def signed(r: Float[np.ndarray, "*any"], sign: Sign) -> Float[np.ndarray, "*any"]:
    """What is largest for the r that is wanted."""
    match sign:
        case "positive":
            return r
        case "negative":
            return -r
        case "either":
            return np.abs(r)
        case _:
            raise ConfigError(f"sign must be positive, negative or either, got {sign!r}.")


def _from_shuffles(
    moments: OutcomeMoments, r: Float[np.ndarray, " d_sae"]
) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
    """The p by counting; and the variance of r against that of independent rows."""
    outcomes = moments.outcomes
    k = outcomes.n_shuffles
    if outcomes.is_grouped and k < MIN_SHUFFLES:
        raise ConfigError(
            f"Rows come in groups, so chance is told by shuffles: {MIN_SHUFFLES} at least, got {k}."
        )
    p, inflation = np.full((2, len(r)), np.nan)
    if k == 0:
        return p, np.ones(len(r))
    for block in _blocks(len(r)):
        null = moments.shuffled_pearson(block)
        known = (~np.isnan(null)).sum(axis=1)
        limit = np.abs(r[block, None]) * (1 - _TIE)
        p[block] = ((np.abs(null) >= limit).sum(axis=1) + 1) / (known + 1)
        inflation[block] = np.nansum(null**2, axis=1) / np.maximum(known, 1) * (moments.n - 1)
    p[np.isnan(r)] = np.nan
    return p, np.maximum(inflation, 1.0) if outcomes.is_grouped else np.ones(len(r))


def _blocks(n: int) -> list[slice]:
    """Of latents, so that few of their shuffles are held twice."""
    return [slice(first, first + _BLOCK) for first in range(0, n, _BLOCK)]


def _two_sided(
    z: Float[np.ndarray, " d_sae"], skewness: Float[np.ndarray, " d_sae"]
) -> Float[np.ndarray, " d_sae"]:
    p = np.full(len(z), np.nan)
    known = ~(np.isnan(z) | np.isnan(skewness))
    z, skewness = z[known], skewness[known]
    # The upper tail of a mirrored distribution is the lower one, and is not lost to rounding.
    tails = pearson3.sf(z, skewness), pearson3.sf(-z, -skewness)
    p[known] = np.clip(2 * np.minimum(*tails), _SMALLEST, 1.0)
    return p


def _spread(moments: OutcomeMoments) -> Float[np.ndarray, " some"]:
    """Standard deviation of z over resamples; of a draw that cannot be told nothing is taken."""
    with np.errstate(divide="ignore"):
        z = np.arctanh(moments.resampled_pearson())
    known = np.isfinite(z)
    n = known.sum(axis=1)
    z = np.where(known, z, 0.0)
    mean = z.sum(axis=1) / np.maximum(n, 1)
    squares = (np.where(known, z - mean[:, None], 0.0) ** 2).sum(axis=1)
    return (
        np.where((n >= MIN_SHUFFLES) & (squares > 0), squares, np.nan) ** 0.5
        / np.maximum(n - 1, 1) ** 0.5
    )


_BLOCK = 4096
_NORMAL = float(norm.ppf(0.975))
_TIE = 1e-9
_SMALLEST = 1e-300
"""A p is never 0: no finite table of moments can say so."""
