"""Results of patching in the seed's form: what three conditions did to the bets, latent by latent.

    {"feature": {"layer", "feature_id", "cohen_d", ...},
     "results": [{"condition", "prompt", "trial", "bet", "response"}],
     "statistics": {"safe_mean", "baseline_mean", "bankrupt_mean", "safe_effect",
                    "bankrupt_effect", "p_safe", "p_bankrupt"}}

The statistics are the seed's own: means of dollars, a stop being a bet of 0, and Student's t test
of each patch against the baseline (`scipy.stats.ttest_ind` as it comes, equal variances, two
sided). They take texts as independent, know no other latents and no controls, and so say little of
cause; what does stands beside them as `verdict`, from exact effects in many states.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.stats import ttest_ind_from_stats

from fluoroscope.core.errors import ConfigError
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.studies.gambling.seed_files.features import (
    layer_of,
    provenance_json,
    seed_columns,
)

BASELINE, TO_SAFE, TO_BANKRUPT = "baseline", "patch_to_safe_mean", "patch_to_bankrupt_mean"
CONDITIONS: Mapping[str, str] = {"safe_mean": TO_SAFE, "bankrupt_mean": TO_BANKRUPT}
"""Our conditions -> the seed's."""

_TRIALS = ["hook_point", "latent", "condition", "prompt", "trial", "bet"]
_VERDICT = (
    "safe_effect", "bankrupt_effect", "effect", "effect_low", "effect_high", "q", "held_out_effect",
    "held_out_effect_low", "held_out_effect_high", "random_latents_95", "random_directions_95",
    "dose_rho", "is_causal",
)  # fmt: skip


def patching_json(
    causal: pl.DataFrame,
    curves: pl.DataFrame,
    trials: pl.DataFrame,
    saes: Sequence[SAEChoice],
) -> dict[str, Any]:  # Any: JSON values.
    """All latents of `causal` (rows of `doses/causal.parquet`), in its order.

    `curves` are those of `doses/curves.parquet`. `trials` has a row a text (see `seed_trials`);
    latents that were screened and not sampled have no `results`, and null in `statistics`.
    """
    lacking = [name for name in _TRIALS if name not in trials.columns]
    if lacking:
        raise ConfigError(
            f"Trials need the columns {', '.join(_TRIALS)}; {', '.join(lacking)} is not there."
        )
    by_latent = _parts(trials.filter(pl.col("condition") != BASELINE))
    baseline = trials.filter(pl.col("condition") == BASELINE)
    dose_curves = _parts(curves)
    features = seed_columns(causal)
    results = []
    for feature, row in zip(
        features.iter_rows(named=True), causal.iter_rows(named=True), strict=True
    ):
        key = (row["hook_point"], row["latent"])
        own = by_latent.get(key, trials.clear())
        texts = pl.concat([own, baseline]) if len(own) else own
        curve = dose_curves.get(key, curves.clear()).drop("hook_point", "latent")
        results.append(
            {
                "feature": _feature_json(feature),
                "results": texts.drop("hook_point", "latent").to_dicts(),
                "statistics": bet_statistics(texts),
                "verdict": {name: _plain(row[name]) for name in _VERDICT if name in row},
                "dose_response": [
                    {name: _plain(value) for name, value in one.items()} for one in curve.to_dicts()
                ],
            }
        )
    used = set(causal["hook_point"])
    return {
        "provenance": provenance_json([sae for sae in saes if sae.hook_point in used]),
        "n_features": len(results),
        "results": results,
    }


def bet_statistics(texts: pl.DataFrame) -> dict[str, float | int | None]:
    """The seed's statistics of the texts of one latent and their baseline, and how many there were.

    Null where there is nothing to compute: no bets, or a test of groups that do not vary.
    """
    bets = {
        name: texts.filter((pl.col("condition") == name) & pl.col("bet").is_not_null())["bet"]
        .cast(pl.Float64)
        .to_numpy()
        for name in (TO_SAFE, BASELINE, TO_BANKRUPT)
    }
    safe, baseline, bankrupt = bets.values()
    return {
        "safe_mean": _mean(safe),
        "baseline_mean": _mean(baseline),
        "bankrupt_mean": _mean(bankrupt),
        "safe_effect": _difference(safe, baseline),
        "bankrupt_effect": _difference(bankrupt, baseline),
        "p_safe": _student_p(safe, baseline),
        "p_bankrupt": _student_p(bankrupt, baseline),
        "n_safe": len(safe),
        "n_baseline": len(baseline),
        "n_bankrupt": len(bankrupt),
        "n_unread": texts["bet"].null_count(),
    }


def seed_trials(replies: pl.DataFrame) -> pl.DataFrame:
    """`confirm/replies.parquet` -> a row a text, with the seed's conditions: latents at their two
    means, and the baseline, which has no latent. `bet` is 0 for a stop, null where nothing could be
    read. Controls are left out.
    """
    kinds = {"baseline", "set"}
    kept = replies.filter(pl.col("kind").is_in(kinds))
    condition = (
        pl.when(pl.col("kind") == "baseline")
        .then(pl.lit(BASELINE))
        .otherwise(pl.col("condition").replace_strict(CONDITIONS, default=None))
    )
    bet = pl.when(pl.col("is_stop")).then(0).when(pl.col("is_read")).then(pl.col("bet"))
    return kept.select(
        "hook_point",
        "latent",
        condition.alias("condition"),
        "prompt",
        "trial",
        bet.cast(pl.Int64).alias("bet"),
        pl.col("text").alias("response"),
    ).filter(pl.col("condition").is_not_null())


def feature_name(hook_point: str, latent: int) -> str:
    """`L25-123`."""
    return f"L{layer_of(hook_point)}-{latent}"


def _feature_json(row: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON values.
    numbers = {key: value for key, value in row.items() if key not in ("hook_point", "latent")}
    return {
        "feature": feature_name(row["hook_point"], row["latent"]),
        "layer": layer_of(row["hook_point"]),
        "feature_id": row["latent"],
        **numbers,
    }


def _parts(frame: pl.DataFrame) -> dict[tuple[str, int], pl.DataFrame]:
    keys = ["hook_point", "latent"]
    return {
        (str(key[0]), int(str(key[1]))): part
        for key, part in frame.group_by(keys, maintain_order=True)
    }


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _difference(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float | None:
    return float(a.mean() - b.mean()) if len(a) and len(b) else None


def _student_p(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float | None:
    if min(len(a), len(b)) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return None
    # From moments, as `ttest_ind` warns of groups that do not vary.
    result = ttest_ind_from_stats(
        float(a.mean()), float(a.std(ddof=1)), len(a), float(b.mean()), float(b.std(ddof=1)), len(b)
    )
    return float(np.asarray(result)[1])


def _plain(value: object) -> object:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
