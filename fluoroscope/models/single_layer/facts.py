"""What a layer costs, from its model's configuration alone.

torch and transformers are imported when facts are asked for, not with this module.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.core.errors import ModelError
from fluoroscope.models.hub import find_config
from fluoroscope.models.known_shapes import known_config
from fluoroscope.models.single_layer.known import llm_source
from fluoroscope.models.single_layer.layouts import check_family, layout_of, parts_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_NEEDED = (
    ("hidden_size", "n_embd", "n_embed"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
)
"""Without these a configuration class would silently take another model's, by any of the names."""

_FALCON_7B: Mapping[str, object] = {
    "model_type": "falcon",
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
}
_QWEN2_SMALL: Mapping[str, object] = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "max_position_embeddings": 131072,
}
_KNOWN = {
    "tiiuae/falcon-7b": _FALCON_7B,
    "Qwen/Qwen2-0.5B": _QWEN2_SMALL,
    "Qwen/Qwen2-1.5B": {
        **_QWEN2_SMALL,
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "intermediate_size": 8960,
    },
}


@dataclass(frozen=True)
class LayerFacts:
    """The sizes of any one layer of a model."""

    family: str
    d_model: int
    n_layers: int

    n_params: int
    """Weights of a whole layer."""

    n_live: int
    """Those that have an effect on a sequence of one token."""

    context: int
    """Tokens that the model was made for."""


def layer_facts(source: str, revision: str | None = None) -> LayerFacts:
    """Of a folder, a well-known model (no network needed), or the hub (its config.json)."""
    from fluoroscope.models.single_layer.blocks import block_shapes

    source = llm_source(source)
    known = None if Path(source).is_dir() else _KNOWN.get(source) or known_config(source)
    config = _config(known, source) if known else read_config(source, revision)
    shapes = block_shapes(config, 0)
    parts = parts_of(layout_of(config), shapes, "token")
    return LayerFacts(
        family=config.model_type,
        d_model=config.hidden_size,
        n_layers=config.num_hidden_layers,
        n_params=sum(map(math.prod, shapes.values())),
        n_live=sum(math.prod(part.shape) for part in parts.values()),
        context=config.max_position_embeddings,
    )


def check_layer(layer: int, n_layers: int, name: str) -> int:
    """The index from 0, of one that may count from the end; `ModelError` where there is none."""
    if not -n_layers <= layer < n_layers:
        raise ModelError(
            f"{name} has {n_layers} layers, so a layer is {-n_layers} to {n_layers - 1} (-1 is the "
            f"last); got {layer}."
        )
    return layer % n_layers


def read_config(source: str, revision: str | None = None) -> "PretrainedConfig":
    """The configuration of a model whose layers can be taken out."""
    path = find_config(source, revision)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}). Fetch or copy it again.") from None
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ModelError(f"{path} is not a model's configuration: it has no model_type.")
    check_family(str(settings["model_type"]), source)
    missing = [names[0] for names in _NEEDED if not any(name in settings for name in names)]
    if missing:
        raise ModelError(
            f"{path} does not say {', '.join(missing)}, by which a layer is found and checked. "
            "Fetch or copy it again."
        )
    return _config(settings, source)


def _config(settings: Mapping[str, object], name: str) -> "PretrainedConfig":
    from transformers import CONFIG_MAPPING

    family = str(settings["model_type"])
    check_family(family, name)
    try:
        return CONFIG_MAPPING[family].from_dict(dict(settings))
    except Exception as error:  # Each configuration class raises its own.
        raise ModelError(f"The configuration of {name} cannot be used: {error}") from error
