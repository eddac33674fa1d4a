"""SAELens folders without a sidecar of ours: SAEs that others trained and kept.

    blocks.8.hook_resid_pre/
        cfg.json                 architecture, sizes, hook point, model; flat in files before 6.0
        sae_weights.safetensors  W_enc [d, s], W_dec [s, d], biases, perhaps a threshold

`f = act((x - b_dec) W_enc + b_enc)` and `x ~ f W_dec + b_dec`, where b_dec is taken from x only if
`apply_b_dec_to_input` says so (files that do not say mean yes). `act` is a ReLU (`standard`), a
threshold (`jumprelu`), the k largest (`topk`), or a gate (`gated`): with g the gate's and m the
magnitude's pre-activation, m = e^r (g - b_gate) + b_mag, so that g > 0 where m exceeds
`b_mag - e^r b_gate`: a gated SAE is a JumpReLU (Rajamanoharan et al. 2024, arXiv:2404.16014).

An SAE of a centred stream (see `saelens_config.py`) is brought to ours, which has its mean, by
`W_enc <- (I - 11^T / d) W_enc`: the same latents on both. Its `reads_centred` is set.

Axes: d model width, s latents.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ConfigError, DamagedError
from fluoroscope.core.storage import read_json, sha256_file
from fluoroscope.core.tensors import read_tensors
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.formats.released import (
    check_shapes,
    encoded_bias,
    released_sae,
    released_topk,
)
from fluoroscope.sae.formats.saelens_config import (
    CONFIG,
    EXPECTED_AVERAGE,
    SCALER,
    WEIGHTS,
    SAELensFacts,
    saelens_facts,
)


def load_saelens(
    folder: Path | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> SparseAutoencoder:
    """The SAE in a folder, of activations as our networks have them, with unit decoder rows.

    A `ReleasedSAE` or a `ReleasedTopK`; `ConfigError` names what cannot be brought to that.
    """
    folder = Path(folder)
    facts = saelens_facts(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"There is no {folder / WEIGHTS}. An SAE of SAELens is a folder with {CONFIG} and "
            f"{WEIGHTS}."
        )
    tensors = read_tensors(folder / WEIGHTS)
    check_shapes(folder / WEIGHTS, tensors, _shapes(facts))
    # Copied: the file is mapped, and weights are overwritten.
    found = {
        name: tensors[name].to(
            device, torch.float64 if tensors[name].ndim == 1 else dtype, copy=True
        )
        for name in _shapes(facts)
    }
    W_enc_T, W_dec = found.pop("W_enc").T.contiguous(), found["W_dec"]
    b_enc, threshold = _thresholded(facts, found, W_enc_T)
    scale = _scale(folder / SCALER) if facts.is_scaled else 1.0
    W_enc_T.mul_(scale)
    W_dec.div_(scale)
    factors = _factors(folder / WEIGHTS, facts, tensors)
    if factors is not None:
        W_dec.mul_(factors.to(W_dec).unsqueeze(-1))
    if facts.reads_centred:
        W_enc_T.sub_(W_enc_T.mean(dim=-1, keepdim=True, dtype=torch.float64).to(dtype))
    weights = (folder, W_enc_T, b_enc, W_dec, found["b_dec"] / scale)
    if facts.k is None:
        sae = released_sae(*weights, threshold)
    else:
        by = "contribution" if facts.is_chosen_by_contribution else "latent"
        sae = released_topk(*weights, facts.k, compared=by)
    sae.hook_point, sae.reads_centred = facts.hook_point, facts.reads_centred
    return sae


def saelens_sha256(cfg: Path) -> str:
    """Of the small files that decide latents: cfg.json, and the factor where it is needed."""
    own = sha256_file(cfg)
    if not saelens_facts(cfg).is_scaled:
        return own
    _scale(cfg.with_name(SCALER))
    return settings_hash([own, sha256_file(cfg.with_name(SCALER))])


def _shapes(facts: SAELensFacts) -> dict[str, tuple[int, ...]]:
    d, s = facts.d_model, facts.d_sae
    biases = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}
    own = biases.get(facts.architecture, ("b_enc",))
    return {"W_enc": (d, s), "W_dec": (s, d), "b_dec": (d,), **dict.fromkeys(own, (s,))}


def _thresholded(
    facts: SAELensFacts, found: Mapping[str, Tensor], W_enc_T: Tensor
) -> tuple[Tensor, Tensor]:
    """Bias of the encoder of activations as they are, and thresholds, float64; of a gated SAE the
    encoder becomes that of its magnitudes.
    """
    b_dec = found["b_dec"] if facts.is_b_dec_taken else torch.zeros_like(found["b_dec"])
    # Thresholds below zero mean zero: behind every one of them is a ReLU.
    if facts.architecture == "gated":
        rescale = found["r_mag"].exp()
        W_enc_T.mul_(rescale.to(W_enc_T).unsqueeze(-1))
        threshold = (found["b_mag"] - rescale * found["b_gate"]).clamp(min=0)
        return found["b_mag"] - encoded_bias(W_enc_T, b_dec), threshold
    bias = found["b_enc"] - encoded_bias(W_enc_T, b_dec)
    return bias, found.get("threshold", torch.zeros_like(bias)).clamp(min=0)


def _factors(weights: Path, facts: SAELensFacts, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Of each latent before it is decoded. Some versions wrote ones where there are none."""
    name = next((n for n in ("finetuning_scaling_factor", "scaling_factor") if n in tensors), None)
    if name is None:
        if facts.is_finetuned:
            raise DamagedError(
                f"{weights} has no finetuning_scaling_factor, and {CONFIG} says that latents are "
                "multiplied by it. Fetch it again."
            )
        return None
    check_shapes(weights, tensors, {name: (facts.d_sae,)})
    if facts.is_finetuned:
        return tensors[name].double()
    if not torch.allclose(tensors[name].float(), torch.ones(facts.d_sae)):
        raise ConfigError(
            f"{weights} has factors of its latents ({name}), and {CONFIG} does not say that they "
            "are used: finetuning_scaling_factor should be true or false."
        )
    return None


def _scale(scaler: Path) -> float:
    found = read_json(scaler) if scaler.is_file() else {}
    scale = found.get("scaling_factor") if isinstance(found, Mapping) else None
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ConfigError(
            f"{scaler.with_name(CONFIG)} says normalize_activations={EXPECTED_AVERAGE!r}, and the "
            f"factor is not known: {scaler} should have a positive number scaling_factor"
            f"{'' if scaler.is_file() else ', and is not there'}. Keep that file with the SAE, or "
            "save the SAE with the factor folded in."
        )
    return float(scale)
