"""The native SAE folder: what SAELens reads, plus a sidecar with everything that we know.

    cfg.json                 SAELens's description
    sae_weights.safetensors  W_enc [d_model, s], W_dec [s, d_model], b_enc, b_dec, perhaps threshold
    fluoroscope.json         our own: architecture, config, provenance, hash of the weights

BatchTopK is a JumpReLU with one threshold for SAELens, and is itself again for us. Weights are
in the units of the activations: any input scale is folded in before saving.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fluoroscope.core.config import build
from fluoroscope.core.errors import DamagedError, MismatchError, UserError
from fluoroscope.core.storage import check_file, read_json, sha256_file, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.formats.saelens_config import CONFIG, STREAMS, WEIGHTS

SIDECAR = "fluoroscope.json"

# The oldest SAELens whose reader takes exactly these fields.
_SAELENS_VERSION = "6.0.0"

_SAELENS_NAMES = {
    "relu": "standard",
    "topk": "topk",
    "batch_topk": "jumprelu",
    "jumprelu": "jumprelu",
}

Provenance = Mapping[str, Any]
"""JSON values: at least `model` (an identity) and what it was trained on."""


def save_sae(
    sae: SparseAutoencoder,
    folder: Path | str,
    hook_point: HookPoint | None = None,
    provenance: Provenance | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the folder; the sidecar last, so that a folder with a sidecar is whole.

    `dtype` is how weights are kept, by default as they are: float16 halves the file. Whoever
    reads it computes in float32 all the same.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SIDECAR).unlink(missing_ok=True)
    weights = dict(sae.state_dict())
    weights["W_enc"] = weights.pop("W_enc_T").T
    if dtype is not None:
        weights = {name: weight.to(dtype) for name, weight in weights.items()}
    write_tensors(folder / WEIGHTS, weights)
    write_json(folder / CONFIG, _saelens_config(sae, hook_point, provenance or {}))
    sidecar = {
        "architecture": sae.architecture,
        "config": sae.config.model_dump(mode="json"),
        "hook_point": None if hook_point is None else str(hook_point),
        "provenance": dict(provenance or {}),
        "weights_sha256": sha256_file(folder / WEIGHTS),
    }
    if sae.reads_centred:
        sidecar["reads_centred"] = True
    write_json(folder / SIDECAR, sidecar)


def load_sae(
    folder: Path | str, *, device: str = "cpu", expect: Provenance | None = None
) -> SparseAutoencoder:
    """An SAE written by `save_sae`, checked against its checksum.

    `expect` are entries of its provenance, or `hook_point` or `weights_sha256`, that must be as
    given, such as `{"model": model.identity.to_json()}`; a difference raises `MismatchError` naming
    both sides. A model is the same under another name: its hashes count.
    """
    folder = Path(folder)
    if not (folder / SIDECAR).exists():
        raise UserError(
            f"{folder} holds no Fluoroscope SAE ({SIDECAR} is missing). "
            "An SAE folder is one that save_sae or `fluoro run dictionary` wrote."
        )
    sidecar = read_json(folder / SIDECAR)
    _check_expected(folder, sidecar, expect or {})
    check_file(folder / WEIGHTS, sidecar["weights_sha256"])
    kind = SAES.load(sidecar["architecture"])
    sae = kind(build(kind.config_type, sidecar["config"]))
    tensors = read_tensors(folder / WEIGHTS)
    tensors["W_enc_T"] = tensors.pop("W_enc").T
    state = sae.state_dict()
    for name, tensor in tensors.items():
        if name not in state or state[name].shape != tensor.shape:
            raise DamagedError(f"{folder / WEIGHTS}: {name} has shape {tuple(tensor.shape)}.")
        state[name] = tensor
    sae.load_state_dict(state)
    if sidecar["hook_point"] is not None:
        sae.hook_point = HookPoint(sidecar["hook_point"])
    sae.reads_centred = sidecar.get("reads_centred", False)
    return sae.to(device).eval()


def sidecar_of(folder: Path | str) -> dict[str, Any]:
    """What the sidecar says, without loading weights."""
    return read_json(Path(folder) / SIDECAR)


def _check_expected(folder: Path, sidecar: Mapping[str, Any], expect: Provenance) -> None:
    known = {name: sidecar[name] for name in ("hook_point", "weights_sha256")}
    known |= sidecar["provenance"]
    for name, wanted in expect.items():
        if _hashes(known.get(name)) != _hashes(wanted):
            raise MismatchError(
                f"The SAE in {folder} belongs to {name} {_said(known.get(name))}, "
                f"and was to be used with {name} {_said(wanted)}."
            )


def _hashes(value: object) -> object:
    """What decides the numbers of a model, which may lie in a folder of another name."""
    if not isinstance(value, Mapping):
        return value
    return {key: found for key, found in value.items() if key.endswith("_sha256")} or value


def _said(value: object) -> str:
    if not isinstance(value, Mapping) or not value.get("id"):
        return repr(value)
    hashes = [f", {key} {str(value[key])[:12]}..." for key in sorted(value) if "sha256" in key]
    return f"{value['id']}{''.join(hashes)}"


def _saelens_config(
    sae: SparseAutoencoder, hook_point: HookPoint | None, provenance: Provenance
) -> dict[str, Any]:
    name = _SAELENS_NAMES[sae.architecture]
    own: dict[str, Any] = {}  # Any: JSON values.
    if name == "topk":
        own = {"k": sae.config.model_dump()["k"], "rescale_acts_by_decoder_norm": False}
    hook_name = ""
    if hook_point is not None:
        hook_name = STREAMS[hook_point.stream].format(hook_point.layer)
    model = provenance.get("model")
    # So that others look at it in the stream that it reconstructs.
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    return {
        "architecture": name,
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **own,
        "metadata": {
            "sae_lens_version": _SAELENS_VERSION,
            "model_name": model["id"] if isinstance(model, Mapping) else model,
            "hook_name": hook_name,
            "training_architecture": sae.architecture,
            **(centred if sae.reads_centred else {}),
        },
    }
