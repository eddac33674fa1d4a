"""What the cfg.json of a SAELens folder says; `saelens.py` computes with it. Free of torch.

Files before 6.0 are flat; since then what is of the model, and not of the SAE, is in `metadata`.
Some names have changed, and what is not said has the default of the version that left it out.

**Centred streams.** TransformerLens can centre the weights that write to the residual stream: its
streams then have mean zero over their dimensions, and as LayerNorm takes that mean away, the
network computes the same. `model_from_pretrained_kwargs.center_writing_weights` says whether an SAE
was trained on such a network. Flat files without `model_from_pretrained_kwargs` are from before
the setting existed, when this was the default, unless the model has RMSNorm: those are never
centred.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError
from fluoroscope.core.storage import read_json
from fluoroscope.models.hook_points import HookPoint

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"

SCALER = "activation_scaler.json"
"""Where SAELens keeps the factor of the activations while it is not folded into the weights."""

EXPECTED_AVERAGE = "expected_average_only_in"

STREAMS = {
    "embed": "hook_embed",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_post": "blocks.{}.hook_resid_post",
}
"""Our stream -> the name of it."""

ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")

_CENTRED, _KWARGS = "center_writing_weights", "model_from_pretrained_kwargs"
_RMS_NORM = re.compile(r"llama|gemma|mi[sx]tral|qwen|\byi-|phi-?[34]|olmo-?2|deepseek|gpt-oss")
_LAYER_NORM = re.compile(
    r"gpt-?2|gpt-(?:neo|j)|pythia|\bopt-|bloom|gelu-|solu-|attn-only|tiny-?stories|stablelm|"
    r"phi-?[12]|santacoder|othello"
)


class SAELensFacts(NamedTuple):
    """What cfg.json says of the formula."""

    hook_point: HookPoint
    d_model: int
    d_sae: int
    architecture: str
    """One of `ARCHITECTURES`."""

    k: int | None
    """Of TopK: how many latents are kept."""

    is_chosen_by_contribution: bool
    """Of TopK: whether the k largest are those of latents times the norm of their decoder row."""

    is_b_dec_taken: bool
    """Whether b_dec is taken from the activation before it is encoded."""

    is_scaled: bool
    """Whether the activation is multiplied by a factor first, which is in `SCALER`."""

    is_finetuned: bool
    """Whether latents are multiplied by factors of their own before they are decoded."""

    reads_centred: bool
    """Whether it is of activations less their mean over dimensions."""


def saelens_facts(cfg: Path | str) -> SAELensFacts:
    """Refuses every setting that means another formula, without looking at the weights."""
    cfg = Path(cfg)
    if not cfg.is_file():
        raise ConfigError(
            f"There is no {cfg}, which says how the SAE computes. An SAE of SAELens is a folder "
            f"with {CONFIG} and {WEIGHTS}."
        )
    given = read_json(cfg)
    if not isinstance(given, Mapping):
        raise DamagedError(f"{cfg} must hold settings by name, got {type(given).__name__}.")
    metadata = given.get("metadata")
    is_old = not isinstance(metadata, Mapping)
    said = dict(given) if is_old else {**given, **metadata}
    point = _hook_point(cfg, said)
    architecture, k = _architecture(cfg, said)
    return SAELensFacts(
        hook_point=point,
        d_model=_size(cfg, said, "d_in"),
        d_sae=_size(cfg, said, "d_sae"),
        architecture=architecture,
        k=k,
        is_chosen_by_contribution=bool(said.get("rescale_acts_by_decoder_norm", False)),
        is_b_dec_taken=bool(said.get("apply_b_dec_to_input", True)),
        is_scaled=_is_scaled(cfg, said),
        is_finetuned=bool(said.get("finetuning_scaling_factor", False)),
        reads_centred=_reads_centred(cfg, said, is_old),
    )


def saelens_point(name: str) -> HookPoint | None:
    """`blocks.8.hook_resid_pre` -> `8.resid_pre`; None for places that are no stream of ours."""
    for stream, hook in STREAMS.items():
        match = re.fullmatch(re.escape(hook).replace(r"\{\}", r"(\d+)"), name)
        if match is not None:
            return HookPoint(f"{match[1] if match.groups() else 0}.{stream}")
    return None


def saelens_hook_name(cfg: Path) -> str:
    """The hook point as the file names it, whether or not it is one of ours."""
    given = read_json(cfg)
    metadata = given.get("metadata") if isinstance(given, Mapping) else None
    said = {**given, **metadata} if isinstance(metadata, Mapping) else given
    return _hook_name(said) if isinstance(said, Mapping) else ""


def _architecture(cfg: Path, said: Mapping[str, Any]) -> tuple[str, int | None]:  # Any: JSON.
    name = said.get("architecture", "standard")
    act = said.get("activation_fn", said.get("activation_fn_str", "relu"))
    # Before 6.0 a TopK was a standard SAE with another function.
    if name == "standard" and act in ("topk", "topk-relu"):
        name = "topk"
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"{cfg} is of the architecture {name!r}; those that are read are "
            f"{', '.join(ARCHITECTURES)}."
        )
    if name == "topk":
        kwargs = said.get("activation_fn_kwargs")
        return name, _size(cfg, said if "k" in said else kwargs or {}, "k")
    if act != "relu":
        raise ConfigError(
            f"{cfg} says activation_fn={act!r}; {name} SAEs are read with 'relu' only."
        )
    return name, None


def _hook_point(cfg: Path, said: Mapping[str, Any]) -> HookPoint:  # Any: JSON.
    name = _hook_name(said)
    point = saelens_point(name)
    head = said.get("hook_head_index", said.get("hook_point_head_index"))
    if point is None or head is not None or said.get("reshape_activations") not in (None, "none"):
        known = ", ".join(hook.format("N") for hook in STREAMS.values())
        raise ConfigError(
            f"{cfg} is of {name!r}{'' if head is None else f', head {head}'}, which is no stream "
            f"of a model here. Known are {known}, whole."
        )
    if said.get("hook_name_out", name) != name:
        raise ConfigError(
            f"{cfg} is of a transcoder, from {name} to {said['hook_name_out']}; an SAE has one "
            "hook point."
        )
    layer = said.get("hook_layer", said.get("hook_point_layer", point.layer))
    if layer != point.layer:
        raise MismatchError(f"{cfg} is of {name} by its hook point, and says hook_layer={layer!r}.")
    return point


def _hook_name(said: Mapping[str, Any]) -> str:  # Any: JSON.
    return str(said.get("hook_name", said.get("hook_point")))


def _is_scaled(cfg: Path, said: Mapping[str, Any]) -> bool:  # Any: JSON.
    match said.get("normalize_activations"):
        case None | False | "none":
            return False
        case True | "expected_average_only_in":
            return True
        case other:
            raise ConfigError(
                f"{cfg} says normalize_activations={other!r}, which is not folded into weights: "
                "such an SAE does not read activations as they are. Those with 'none' or "
                f"{EXPECTED_AVERAGE!r} are read; name one of them."
            )


def _reads_centred(cfg: Path, said: Mapping[str, Any], is_old: bool) -> bool:  # Any: JSON.
    kwargs, model = said.get(_KWARGS), str(said.get("model_name"))
    is_rms = _RMS_NORM.search(model.lower()) is not None
    if isinstance(kwargs, Mapping) and _CENTRED in kwargs:
        return bool(kwargs[_CENTRED]) and not is_rms
    # Whoever wrote the setting, or the form of 6.0, loads networks without centring.
    if is_rms or isinstance(kwargs, Mapping) or not is_old:
        return False
    if _LAYER_NORM.search(model.lower()) is None:
        raise ConfigError(
            f"{cfg} is of the model {model!r} and does not say whether the model's stream was "
            f"centred, as TransformerLens does for networks with LayerNorm. Write "
            f'"{_KWARGS}": {{"{_CENTRED}": true}} into it, or false for RMSNorm and for networks '
            "that were not processed."
        )
    return True


def _size(cfg: Path, given: Mapping[str, Any], name: str) -> int:  # Any: JSON.
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{cfg} needs a whole number {name} from 1 on, and has {value!r}.")
    return value
