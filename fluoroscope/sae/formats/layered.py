"""One file a layer, as the plan of the hallucination study (seed 001) keeps its SAEs.

    sae_layer_0_best.safetensors, sae_layer_1_best.safetensors, ...

hold `W_enc.weight` [s, d], `W_enc.bias`, `W_dec.weight` [d, s], `W_dec.bias` and `threshold`, of

    z = (W_enc x + b_enc) [W_enc x + b_enc > threshold],    x ~ W_dec z + b_dec

of raw activations of what leaves block 0, 1, ... The plan has one threshold for all latents, ours
have one each. Its own files are `.pt` and are read as well, tensors and plain values alone
(`weights_only`). What we write has our config, hook point and provenance in its metadata.

Axes: d model width, s latents.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import Tensor

from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.formats.released import ReleasedSAE, check_shapes, released_sae
from fluoroscope.sae.thresholded import ThresholdedSAE

GLOBS = ("sae_layer_*_best.safetensors", "sae_layer_*_best.pt")
"""The first of a layer is the one that is read."""

_NAME = re.compile(r"sae_layer_(\d+)_best\.(?:safetensors|pt)")
_STATE, _LAYER = "model_state_dict", "layer_idx"


class LayeredFacts(NamedTuple):
    """What a file says of its SAE."""

    hook_point: HookPoint
    d_model: int
    d_sae: int


def layered_name(layer: int) -> str:
    """`sae_layer_3_best.safetensors`."""
    return f"sae_layer_{layer}_best.safetensors"


def layer_in_name(name: str) -> int | None:
    """Of `sae_layer_3_best.pt`, 3; None for other names."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def save_layered(
    sae: SparseAutoencoder,
    folder: Path,
    hook_point: HookPoint,
    provenance: Mapping[str, Any] | None = None,  # Any: JSON values.
) -> Path:
    """Writes the file of the layer. Latents that are thresholded one by one can be written so;
    `ConfigError` for those that compete (TopK), which the form cannot say.
    """
    if not isinstance(sae, ThresholdedSAE):
        raise ConfigError(
            f"An SAE of architecture {sae.architecture} cannot be written as one file a layer: its "
            "latents compete, and the form has a threshold. Use the SAE's own folder."
        )
    # The form encodes x itself, ours x - b_dec.
    shift = sae.W_enc_T.double() @ sae.b_dec.double()
    tensors = {
        "W_enc.weight": sae.W_enc_T,
        "W_enc.bias": (sae.b_enc.double() - shift).to(sae.b_enc),
        "W_dec.weight": sae.W_dec.T,
        "W_dec.bias": sae.b_dec,
        "threshold": sae.threshold.broadcast_to(sae.d_sae),
    }
    about = {
        "architecture": sae.architecture,
        "config": sae.config.model_dump(mode="json"),
        "hook_point": str(hook_point),
        "provenance": dict(provenance or {}),
    }
    file = folder / layered_name(hook_point.layer)
    write_tensors(file, tensors, about)
    return file


def load_layered(
    file: Path,
    *,
    device: str = "cpu",
    model: Mapping[str, Any] | None = None,  # Any: JSON values.
) -> ReleasedSAE:
    """The SAE in a file. `model` is the identity of the model that it is to be used with; one that
    we wrote knows its own, and is refused for a model with other weights.
    """
    about, state = _about(file), _state(file)
    _check_model(file, (about.get("provenance") or {}).get("model"), model)
    facts = _facts(file, about, state)
    s, d = facts.d_sae, facts.d_model
    check_shapes(
        file,
        state,
        {"W_enc.weight": (s, d), "W_enc.bias": (s,), "W_dec.weight": (d, s), "W_dec.bias": (d,)},
    )
    if "threshold" not in state or state["threshold"].numel() not in (1, s):
        raise DamagedError(f"{file} needs a threshold, one number or {s} of them.")
    # Copied: the file is mapped, and may be written anew while the SAE is used.
    found = {name: state[name].detach().to(device, torch.float32, copy=True) for name in _TENSORS}
    sae = released_sae(
        file,
        found["W_enc.weight"],
        found["W_enc.bias"],
        found["W_dec.weight"].T.contiguous(),
        found["W_dec.bias"],
        found["threshold"].reshape(-1).expand(s).contiguous(),
    )
    sae.hook_point = facts.hook_point
    return sae


def layered_facts(file: Path) -> LayeredFacts:
    """Without reading more of the weights than where they lie."""
    return _facts(file, _about(file), _state(file))


def layered_point(file: Path) -> HookPoint | None:
    """Where the SAE of a file belongs, by our metadata or by its name."""
    layer = layer_in_name(file.name)
    said = _about(file).get("hook_point")
    if said is not None:
        return HookPoint(said)
    return None if layer is None else HookPoint(f"{layer}.resid_post")


_TENSORS = ("W_enc.weight", "W_enc.bias", "W_dec.weight", "W_dec.bias", "threshold")


def _facts(file: Path, about: Mapping[str, Any], state: Mapping[str, Tensor]) -> LayeredFacts:
    point = layered_point(file)
    if point is None:
        raise ConfigError(
            f"{file} does not say which layer it is of, as {layered_name(3)} would. Rename it."
        )
    named, said = layer_in_name(file.name), about.get(_LAYER, point.layer)
    if named is not None and named != said:
        raise MismatchError(
            f"{file} is of layer {named} by its name, and of {said} by what is in it. Name it "
            "after what is in it."
        )
    weight = state.get("W_enc.weight")
    if weight is None or weight.ndim != 2:
        raise DamagedError(
            f"{file} has no matrix W_enc.weight; it has {', '.join(sorted(state)) or 'nothing'}. "
            "A file of this form holds W_enc.weight, W_enc.bias, W_dec.weight, W_dec.bias and "
            "threshold."
        )
    return LayeredFacts(point, weight.shape[1], weight.shape[0])


def _about(file: Path) -> dict[str, Any]:  # Any: JSON values.
    if file.suffix == ".pt":
        layer = _checkpoint(file).get(_LAYER)
        return {} if layer is None else {_LAYER: _number(file, layer)}
    found = read_metadata(file)
    return found if isinstance(found, dict) else {}


def _number(file: Path, layer: Any) -> int:  # Any: whatever stands there.
    try:
        return int(layer)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise DamagedError(
            f"{file} must say under {_LAYER!r} which block its SAE is of, a number from 0 on; got "
            f"{layer!r}. Save it with the number, or with the weights alone."
        ) from None


def _state(file: Path) -> Mapping[str, Tensor]:
    if file.suffix != ".pt":
        return read_tensors(file)
    loaded = _checkpoint(file)
    state = loaded.get(_STATE, loaded)
    if not isinstance(state, Mapping):
        raise DamagedError(f"{file} holds no weights under {_STATE!r}.")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _checkpoint(file: Path) -> dict[str, Any]:  # Any: tensors and plain values.
    try:
        with torch.serialization.safe_globals(_plain_numbers()):
            # Mapped, so that what is not used (an optimiser's state) is never read.
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DamagedError(
            f"{file} cannot be read as tensors and plain values ({first}). Nothing else is loaded "
            "from a pickle, as it could run anything: save its state_dict alone, or as "
            "safetensors."
        ) from None
    if not isinstance(loaded, dict):
        raise DamagedError(f"{file} must hold a dictionary, got {type(loaded).__name__}.")
    return loaded


def _plain_numbers() -> list[Any]:  # Any: what torch takes, a class or a pair with its name.
    # A history of losses often has numpy's numbers; they hold nothing that runs.
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "bool")]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *kinds,
    ]


def _check_model(file: Path, own: object, used: Mapping[str, Any] | None) -> None:
    if used is None or not isinstance(own, Mapping):
        return
    keys = [key for key in used if key.endswith("_sha256") and key in own]
    if any(own[key] != used[key] for key in keys):
        raise MismatchError(
            f"The SAE in {file} belongs to model {own.get('id')!r}, and was to be used with model "
            f"{used.get('id')!r}, whose weights or words are others."
        )
