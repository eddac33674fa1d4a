"""ModelShape: a model's sizes from its configuration alone, for planning before anything loads.

Counts are exact: the network is built without memory for its weights, and its parts counted.
torch and transformers are imported when a shape is asked for, not with this module.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fluoroscope.core.errors import ModelError
from fluoroscope.models.families import Family, find_family
from fluoroscope.models.known_shapes import known_config

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

Dtype = Literal["float64", "float32", "bfloat16", "float16"]
BYTES: Mapping[str, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelShape:
    """The sizes that decide what a model costs."""

    family: str
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_mlp: int
    vocab_size: int
    context_length: int

    n_params: int
    """All weights, head included; shared ones count once."""

    n_multiplied: int
    """Weights that each token is multiplied with; ALBERT's block counts once a run."""

    is_tied: bool
    """The head is the embedding table."""

    @classmethod
    def of(cls, name_or_folder: str, revision: str | None = None) -> "ModelShape":
        """Of a folder, a well-known model (no network needed), or the hub (its config.json)."""
        known = None if Path(name_or_folder).is_dir() else known_config(name_or_folder)
        return cls.from_settings(known or _read(name_or_folder, revision), name_or_folder)

    @classmethod
    def from_settings(cls, settings: Mapping[str, object], name: str) -> "ModelShape":
        """Of the content of a config.json."""
        from transformers import AutoConfig

        family = find_family(str(settings.get("model_type")), name)
        rest = {key: value for key, value in settings.items() if key != "model_type"}
        try:
            config = AutoConfig.for_model(family.model_type, **rest)
            network = _without_memory(config, family)
        except Exception as error:  # Each configuration class raises its own.
            raise ModelError(f"The configuration of {name} cannot be used: {error}") from error
        return cls.from_network(network)

    @classmethod
    def from_network(cls, network: "PreTrainedModel") -> "ModelShape":
        from fluoroscope.models.hooking import HookedNetwork

        config = network.config
        family = find_family(config.model_type, type(network).__name__)
        n_heads = config.num_attention_heads
        blocks = HookedNetwork(network, family).blocks
        return cls(
            family=family.model_type,
            d_model=config.hidden_size,
            n_layers=len(blocks),
            n_heads=n_heads,
            n_kv_heads=_n_kv_heads(config, n_heads),
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // n_heads,
            d_mlp=_d_mlp(config),
            vocab_size=config.vocab_size,
            context_length=config.max_position_embeddings - family.position_offset(config),
            n_params=sum(parameter.numel() for parameter in network.parameters()),
            n_multiplied=_n_multiplied(network, blocks),
            is_tied=bool(config.tie_word_embeddings),
        )

    def forward_flops_per_token(self, context: int) -> float:
        """Floating-point operations of a forward pass, in rows of `context` tokens, per token.

        Two for each weight, and attention over the whole row: kernels that skip the future
        or a sliding window do less, so this is an upper bound.
        """
        attention = 4 * context * self.n_heads * self.head_dim * self.n_layers
        return float(2 * self.n_multiplied + attention)

    def weight_bytes(self, dtype: Dtype) -> int:
        return self.n_params * BYTES[dtype]

    def activation_bytes_per_token(self, dtype: Dtype, n_points: int) -> int:
        """What keeping `n_points` streams of one token takes."""
        return n_points * self.d_model * BYTES[dtype]


def _read(name_or_folder: str, revision: str | None) -> Mapping[str, object]:
    from fluoroscope.models.hub import find_config

    path = find_config(name_or_folder, revision)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ModelError(f"{path} is not a model's configuration: it has no model_type.")
    return settings


def _without_memory(config: "PretrainedConfig", family: Family) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    auto = AutoModelForCausalLM if family.kind == "decoder" else AutoModelForMaskedLM
    with torch.device("meta"):
        return auto.from_config(config)


def _n_kv_heads(config: "PretrainedConfig", n_heads: int) -> int:
    if config.model_type == "falcon" and not config.new_decoder_architecture:
        return 1 if config.multi_query else n_heads
    names = ("num_key_value_heads", "num_kv_heads")
    found = (getattr(config, name, None) for name in names)
    return next((number for number in found if number is not None), n_heads)


def _d_mlp(config: "PretrainedConfig") -> int:
    names = ("n_inner", "ffn_hidden_size", "ffn_dim", "intermediate_size")
    found = (getattr(config, name, None) for name in names)
    # GPT-2's n_inner is None for the usual four times.
    return next((number for number in found if number is not None), 4 * config.hidden_size)


def _n_multiplied(network: "nn.Module", blocks: "list[nn.Module]") -> int:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    def count(module: nn.Module) -> int:
        parts = (part for part in module.modules() if isinstance(part, nn.Linear | Conv1D))
        return sum(part.weight.numel() for part in parts)

    once = {id(block): block for block in blocks}.values()
    return count(network) - sum(map(count, once)) + sum(map(count, blocks))
