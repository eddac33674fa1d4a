"""Llama Scope (He et al. 2024, arXiv:2410.20526): SAEs of every block of Llama-3.1-8B.

    Llama3_1-8B-Base-L15R-8x/hyperparams.json             sizes, hook point, threshold, norms
    Llama3_1-8B-Base-L15R-8x/checkpoints/final.safetensors    encoder.*, decoder.*, bfloat16

Weights are of normalised activations, `x s` with `s = sqrt(d_model) / average norm`; the one
`jump_relu_threshold` is not. The release's own loader (OpenMOSS Language-Model-SAEs,
`SparseAutoEncoder.from_pretrained`) first brings weights to raw activations, then decoder rows
to unit norm (`sparsity_include_decoder_norm`), and compares *those* latents with the threshold:

    f_j = n_j / s (x s W_E + b_E)_j,  active where f_j > jump_relu_threshold,  n_j = |W_D[j]|
    x ~ sum_j f_j W_D[j] / n_j + b_D / s

with no decoder bias before the encoder. That is why published thresholds grow with the norm of
the activations (0.202 at norm 6.31 in block 8, 0.527 at 17.1 in block 19). These f are ours too.
A loader that compares `x s W_E + b_E` with the bare threshold keeps hundreds of latents instead
of about 50; one with a plain ReLU keeps a thousand.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.formats.released import ReleasedSAE, check_shapes, released_sae

HYPERPARAMS, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"

_HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|attn_out|mlp_out|resid_post)")
_FIXED: Mapping[str, object] = {
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "apply_decoder_bias_to_pre_encoder": False,
    "use_glu_encoder": False,
    "use_decoder_bias": True,
}
"""Settings that this loader computes with; another value is another formula."""


class LlamaScopeSettings(NamedTuple):
    """What hyperparams.json says of the formula."""

    hook_point: HookPoint
    d_model: int
    d_sae: int
    threshold: float
    average_norm: float
    """Mean norm of the activations that it was trained on."""

    is_of_contributions: bool
    """Whether the threshold is compared with latents times the norm of their decoder row."""


def load_llama_scope(
    folder: Path | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> ReleasedSAE:
    """The SAE in `Llama3_1-8B-Base-L{n}{R,A,M}-{8,32}x/`, of raw activations.

    Its `release_scale` is relative to the latents of normalised activations, `x s W_E + b_E`,
    which other loaders return.
    """
    folder = Path(folder)
    settings = read_llama_scope(folder / HYPERPARAMS)
    tensors = read_tensors(folder / WEIGHTS)
    d_model, d_sae = settings.d_model, settings.d_sae
    check_shapes(
        folder / WEIGHTS,
        tensors,
        {
            "encoder.weight": (d_sae, d_model),
            "encoder.bias": (d_sae,),
            "decoder.weight": (d_model, d_sae),
            "decoder.bias": (d_model,),
        },
    )
    norm_factor = math.sqrt(d_model) / settings.average_norm
    sae = released_sae(
        folder,
        tensors["encoder.weight"].to(device, dtype, copy=True),
        tensors["encoder.bias"].to(device).double() / norm_factor,
        tensors["decoder.weight"].to(device, dtype, copy=True).T.contiguous(),
        tensors["decoder.bias"].to(device).double() / norm_factor,
        torch.full((d_sae,), settings.threshold, dtype=torch.float64, device=device),
        compared="contribution" if settings.is_of_contributions else "latent",
        unit=1 / norm_factor,
    )
    sae.hook_point = settings.hook_point
    return sae


def read_llama_scope(hyperparams: Path) -> LlamaScopeSettings:
    """Refuses every setting that means another formula, above all a missing threshold: without
    it a ReLU would be left, which is another SAE.
    """
    if not hyperparams.is_file():
        raise ConfigError(
            f"There is no {hyperparams}, which says how the SAE computes. An SAE of Llama Scope is "
            f"a folder with {HYPERPARAMS} and {WEIGHTS}."
        )
    given = read_json(hyperparams)
    for name, expected in _FIXED.items():
        if given.get(name, expected) != expected:
            raise ConfigError(
                f"{hyperparams} says {name}={given[name]!r}, and Llama Scope SAEs are read with "
                f"{name}={expected!r} only: any other is another formula."
            )
    point = given.get("hook_point_in")
    if given.get("hook_point_out", point) != point:
        raise ConfigError(
            f"{hyperparams} is of a transcoder, from {point} to {given['hook_point_out']}; an SAE "
            "has one hook point."
        )
    norms = given.get("dataset_average_activation_norm") or {}
    return LlamaScopeSettings(
        hook_point=_hook_point(hyperparams, str(point)),
        d_model=int(_positive(hyperparams, given, "d_model")),
        d_sae=int(_positive(hyperparams, given, "d_sae")),
        threshold=_positive(hyperparams, given, "jump_relu_threshold"),
        average_norm=_positive(hyperparams, norms, "in"),
        is_of_contributions=bool(given.get("sparsity_include_decoder_norm", True)),
    )


def _hook_point(hyperparams: Path, name: str) -> HookPoint:
    match = _HOOK.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"{hyperparams} is of the hook point {name!r}; known are blocks.N.hook_ with "
            "resid_pre, attn_out, mlp_out, resid_post."
        )
    return HookPoint(f"{match[1]}.{match[2]}")


def _positive(hyperparams: Path, given: Mapping[str, Any], name: str) -> float:  # Any: JSON.
    value = given.get(name)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(
            f"{hyperparams} needs a positive number {name}, and has {value!r}. Without it there is "
            "no telling which latents are active or how large they are."
        )
    return value
