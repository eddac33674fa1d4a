"""Whether numbered features can be latents of an SAE at all.

The plan's own file (`L1_31_features_FINAL_*.json`) has dimensions of the hidden state, and was
patched for ten days as if its numbers were those of SAE latents. Three things tell: latents are
never negative, their numbers go up to `d_sae`, and important ones are anywhere among them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.errors import MismatchError
from fluoroscope.steps.sae_sources import SAEChoice

_NOT_LATENTS = ("hidden", "neuron")
_CHANCE = 1e-6
"""Probability, under numbers drawn evenly, below which so many small ones are no accident."""


def check_can_be_latents(
    path: Path,
    header: Mapping[str, Any],  # Any: JSON values.
    features: pl.DataFrame,
    saes: Mapping[str, SAEChoice],
    *,
    is_known: bool,
) -> None:
    """Raises `MismatchError` with the reason. `is_known` files say of which SAE they are, so that
    small numbers need no explanation.
    """
    for refusal in (
        _said(header),
        _counted(header, features, saes),
        _negative(features),
        _too_large(features, saes),
        _twice(features),
        None if is_known else _all_small(features, saes),
    ):
        if refusal is not None:
            raise MismatchError(f"{path} has no latents of these SAEs: {refusal}.")


def _said(header: Mapping[str, Any]) -> str | None:  # Any: JSON values.
    said = [header.get("feature_type"), header.get("feature_space")]
    provenance = header.get("provenance")
    if isinstance(provenance, Mapping):
        said.append(provenance.get("feature_space"))
    for text in said:
        words = text.lower() if isinstance(text, str) else "sae"
        if "sae" not in words and any(word in words for word in _NOT_LATENTS):
            return f"it says that its features are {text!r}"
    return None


def _counted(
    header: Mapping[str, Any],  # Any: JSON values.
    features: pl.DataFrame,
    saes: Mapping[str, SAEChoice],
) -> str | None:
    """By the number of features that each layer was searched for."""
    results = header.get("layer_results") or {}
    sizes = {saes[point].d_sae for point in features["hook_point"].unique()}
    for layer, result in results.items():
        n = result.get("n_features") if isinstance(result, Mapping) else None
        if isinstance(n, int) and n not in sizes and len(sizes) == 1:
            return f"layer {layer} was searched for {n} features, and the SAE has {sizes.pop()}"
    return None


def _negative(features: pl.DataFrame) -> str | None:
    is_negative = (pl.col("bankrupt_mean") < 0) | (pl.col("safe_mean") < 0)
    bad = features.filter(is_negative)
    if not len(bad):
        return None
    row = bad.row(0, named=True)
    return (
        f"{len(bad)} of {len(features)} have a negative mean (feature {row['latent']} at "
        f"{row['hook_point']}: {row['bankrupt_mean']:g}, {row['safe_mean']:g}), and a latent is "
        "never negative. Such numbers are dimensions of the hidden state"
    )


def _too_large(features: pl.DataFrame, saes: Mapping[str, SAEChoice]) -> str | None:
    for row in features.iter_rows(named=True):
        d_sae = saes[row["hook_point"]].d_sae
        if row["latent"] >= d_sae:
            return f"it has feature {row['latent']} at {row['hook_point']}, of {d_sae} latents"
    return None


def _twice(features: pl.DataFrame) -> str | None:
    keys = features.select("hook_point", "latent")
    repeated = keys.filter(keys.is_duplicated())
    if not len(repeated):
        return None
    point, latent = repeated.row(0)
    return f"it has feature {latent} at {point} twice"


def _all_small(features: pl.DataFrame, saes: Mapping[str, SAEChoice]) -> str | None:
    """That all are below d_model has probability (d_model / d_sae)^n, if they are latents."""
    log_chance = 0.0
    for point, latent in features.select("hook_point", "latent").iter_rows():
        sae = saes[point]
        if latent >= sae.d_model:
            return None
        log_chance += math.log(min(1.0, sae.d_model / sae.d_sae))
    if log_chance > math.log(_CHANCE):
        return None
    sae = saes[features["hook_point"][0]]
    return (
        f"all {len(features)} numbers are below {sae.d_model}, the width of the activations, and "
        f"latents go up to {sae.d_sae}. Such numbers are dimensions of the hidden state"
    )
