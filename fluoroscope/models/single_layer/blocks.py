"""Layers of transformers without their model, and without memory for their weights."""

import copy
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from fluoroscope.core.errors import ModelError
from fluoroscope.models.single_layer.layouts import layout_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def empty_block(config: "PretrainedConfig", layer: int) -> nn.Module:
    """Layer `layer` on the meta device, with the fused attention kernel where it has one."""
    settings = copy.deepcopy(config)
    # Gemma 2 caps its scores, which the fused kernel cannot; Falcon's own code for other
    # kernels counts its position biases twice.
    settings._attn_implementation = "eager" if config.model_type == "gemma2" else "sdpa"
    layout = layout_of(config)
    try:
        with torch.device("meta"):
            return _class(config, layout.block)(settings, layer_idx=layer)
    except Exception as error:  # Each configuration class raises its own.
        raise ModelError(
            f"A layer of {config.model_type} cannot be built from its config.json: {error}"
        ) from error


def rotary_embedding(config: "PretrainedConfig") -> nn.Module | None:
    """What gives a model's layers their rotary angles; None where it has none."""
    layout = layout_of(config)
    if layout.rotary is None or getattr(config, "alibi", False):
        return None
    return _class(config, layout.rotary)(config=config)


def block_shapes(config: "PretrainedConfig", layer: int) -> Mapping[str, tuple[int, ...]]:
    """The shape of every weight of a layer, by its name in it."""
    return {
        name: tuple(weight.shape) for name, weight in empty_block(config, layer).named_parameters()
    }


def _class(config: "PretrainedConfig", name: str) -> type[nn.Module]:
    family = config.model_type
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    return getattr(module, name)
