"""Which latents to steer with, and how strongly: pure functions of finished statistics.

`latent_table` has a row a latent; the rest picks among its rows and never looks at rows of data.
CorrSteer (arXiv:2508.12535): -A is `top_per_layer`, -S `top_overall`, by r and positive. The other
methods differ in what they rank by alone: mutual information (SpARE, arXiv:2410.15999), the ratio
of second moments (DSG, arXiv:2504.08192), the difference of means.

Axes: `d_sae` latents, `rows` of a table.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Float, Real

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.features.correlation import FAILURE, POSITIVE, SUCCESS, OutcomeMoments
from fluoroscope.features.correlation_nulls import (
    MIN_ACTIVE,
    Sign,
    family_wise,
    intervals,
    is_tested,
    null_maxima,
    p_values,
    signed,
)
from fluoroscope.features.multiple_tests import benjamini_hochberg

Ranking = Literal["r", "mutual_information", "fisher", "mean_difference"]
"""Columns of the table that latents are ranked by."""

Coefficient = Literal["positive", "active", "difference", "quantile"]
"""The paper's mean over y > 0, zeros included, which is how often times how much; E[x | active],
how much alone; E[x | success] - E[x | failure]; a quantile of the active values of successes.
"""

N_NEAREST = 10
"""Latents among which a random control is drawn."""


def latent_table(
    found: Mapping[str, OutcomeMoments],
    min_active: int = MIN_ACTIVE,
    alpha: float = 0.05,
    quantile: float = 0.9,
) -> pl.DataFrame:
    """A row for each latent of each hook point.

    `r` with `r_low` and `r_high`, its `sign`; `n` samples, `n_active`, and the shares `frequency`,
    `frequency_success`, `frequency_failure` of samples it is active in.

    `p` by moments of shuffles, beside `p_t` and `p_shuffled`; its `q` (Benjamini and Hochberg) over
    the `n_tests` tested latents of all hook points; `p_layer` and `p_all` hold for all latents of
    the layer and of all layers. `is_tested`: varies and is active in `min_active` samples. Others
    have no q and are never picked. `is_significant`: q < `alpha`.

    `mutual_information` in nats, `fisher`, `mean_difference` to rank by; `mean_positive`,
    `mean_active`, `mean_difference`, `quantile` to take coefficients from.
    """
    null = null_maxima(found, min_active)
    parts = [
        _of_point(point, moments, null, min_active, quantile) for point, moments in found.items()
    ]
    table = pl.concat(parts)
    tested = table["is_tested"].to_numpy()
    q = benjamini_hochberg(np.where(tested, table["p"].to_numpy(), np.nan))
    return table.with_columns(
        q=pl.Series(q),
        n_tests=pl.lit(int(tested.sum())),
        is_significant=pl.Series(q < alpha),
    )


def ranked(
    table: pl.DataFrame,
    by: Ranking = "r",
    sign: Sign = "positive",
    only_significant: bool = False,
) -> pl.DataFrame:
    """The tested latents with an r of the wanted sign, best first; ties by r, then as they stand.

    With sign negative a Fisher ratio is best where smallest. `rank` counts from 1.
    """
    if by not in get_args(Ranking):
        raise ConfigError(f"Latents are ranked by one of {get_args(Ranking)}, got {by!r}.")
    chosen = table.filter("is_tested")
    chosen = chosen.filter("is_significant") if only_significant else chosen
    r = signed(chosen["r"].to_numpy(), sign)
    score = chosen[by].to_numpy()
    match by:
        case "r":
            score = r
        case "mean_difference":
            score = np.abs(score)
        case "fisher":
            with np.errstate(divide="ignore"):
                score = np.abs(np.log(score))
        case "mutual_information":
            pass
    is_candidate = (r > 0) & ~np.isnan(score)
    order = np.lexsort((np.arange(len(r)), -r, -score))
    chosen = chosen[order[is_candidate[order]]]
    return chosen.with_columns(rank=pl.int_range(1, pl.len() + 1))


def top_per_layer(
    table: pl.DataFrame,
    by: Ranking = "r",
    sign: Sign = "positive",
    n: int = 1,
    only_significant: bool = False,
) -> pl.DataFrame:
    """The best `n` of every hook point, in the order of the table; none where none is eligible."""
    order = ranked(table, by, sign, only_significant)
    points = table["hook_point"].unique(maintain_order=True)
    return pl.concat([order.filter(pl.col("hook_point") == point).head(n) for point in points])


def top_overall(
    table: pl.DataFrame,
    by: Ranking = "r",
    sign: Sign = "positive",
    n: int = 1,
    only_significant: bool = False,
) -> pl.DataFrame:
    """The best `n` over all hook points."""
    return ranked(table, by, sign, only_significant).head(n)


def with_coefficients(
    chosen: pl.DataFrame, how: Coefficient = "positive", scale: float = 1.0
) -> pl.DataFrame:
    """Adds `coefficient`: |what `how` says| times `scale`, negative where r is (steer away)."""
    if how not in get_args(Coefficient):
        raise ConfigError(f"A coefficient is one of {get_args(Coefficient)}, got {how!r}.")
    column = {"active": "mean_active", "quantile": "quantile"}.get(how, f"mean_{how}")
    return chosen.with_columns(coefficient=pl.col(column).abs() * pl.col("sign") * scale)


def random_controls(
    table: pl.DataFrame,
    chosen: pl.DataFrame,
    norms: Mapping[str, Real[np.ndarray, " d_sae"]],
    seed: int,
    n: int = 1,
) -> pl.DataFrame:
    """For each chosen latent `n` others of its layer that are about as frequent and as long.

    Drawn without repeats from the `N_NEAREST` (or n, if more) tested latents nearest in log
    frequency and log of the decoder's norm, each in units of its spread in the layer; none is
    chosen itself. Says whose `control_of` it is, and which `draw`; their own r stands beside them.
    """
    parts = []
    for point in chosen["hook_point"].unique(maintain_order=True).to_list():
        layer = table.filter((pl.col("hook_point") == point) & pl.col("is_tested"))
        wanted = chosen.filter(pl.col("hook_point") == point)["latent"].to_numpy()
        if point not in norms:
            raise ConfigError(f"Norms are needed for {point}, got those of {sorted(norms)}.")
        places = _places(layer, np.asarray(norms[point], dtype=np.float64))
        latents = layer["latent"].to_numpy()
        is_free = ~np.isin(latents, wanted)
        for latent in wanted:
            own = places[latents == latent]
            far = np.where(is_free, ((places - own) ** 2).sum(axis=1), np.inf)
            near = np.argsort(far, kind="stable")[: max(N_NEAREST, n)]
            near = near[np.isfinite(far[near])]
            if len(own) == 0 or len(near) < n:
                raise ConfigError(
                    f"{point} has {len(near)} tested latents to stand beside {latent}, but "
                    f"{n} are wanted: take fewer controls, or lower min_active."
                )
            drawn = stream(seed, "random controls", point, int(latent)).permutation(near)[:n]
            is_free[drawn] = False
            parts.append(
                layer[drawn].with_columns(
                    control_of=pl.lit(int(latent)), draw=pl.int_range(pl.len())
                )
            )
    if not parts:
        raise ConfigError("No latent is chosen, so there is nothing to control for.")
    return pl.concat(parts)


def _of_point(
    point: str,
    moments: OutcomeMoments,
    null: pl.DataFrame,
    min_active: int,
    quantile: float,
) -> pl.DataFrame:
    r, ends, p = moments.pearson(), intervals(moments), p_values(moments)
    tested = is_tested(moments, min_active)
    rates = moments.active_side / np.where(moments.n_side > 0, moments.n_side, np.nan)
    among_tested = np.where(tested, r, np.nan)
    success, failure = moments.side_mean(SUCCESS), moments.side_mean(FAILURE)
    return pl.DataFrame(
        {
            "hook_point": [point] * moments.d_sae,
            "latent": np.arange(moments.d_sae),
            "sign": np.nan_to_num(np.sign(r)).astype(np.int64),
            "r": r,
            "r_low": ends.low,
            "r_high": ends.high,
            "p": p.moments,
            "p_t": p.t,
            "p_shuffled": p.shuffled,
            "p_layer": family_wise(among_tested, null, point),
            "p_all": family_wise(among_tested, null),
            "is_tested": tested,
            "n": np.full(moments.d_sae, moments.n),
            "n_active": moments.active,
            "frequency": moments.active / moments.n,
            "frequency_success": rates[:, SUCCESS],
            "frequency_failure": rates[:, FAILURE],
            "mutual_information": moments.mutual_information(),
            "fisher": moments.fisher(),
            "mean_difference": success - failure,
            "mean_success": success,
            "mean_failure": failure,
            "mean_positive": moments.side_mean(POSITIVE),
            "mean_active": moments.mean_active,
            "quantile": moments.active_quantile(quantile, "success"),
        }
    )


def _places(layer: pl.DataFrame, norms: Float[np.ndarray, " d_sae"]) -> Float[np.ndarray, "rows 2"]:
    """Log frequency and log norm, each in units of its spread."""
    own = norms[layer["latent"].to_numpy()]
    if not (np.isfinite(own) & (own > 0)).all():
        raise ConfigError("A tested latent has a decoder of norm 0, or one that is not finite.")
    places = np.log(np.stack([layer["frequency"].to_numpy(), own], axis=1))
    spread = places.std(axis=0)
    # Decoders of one norm differ by rounding alone.
    return places / np.where(spread > 1e-6, spread, np.inf)
