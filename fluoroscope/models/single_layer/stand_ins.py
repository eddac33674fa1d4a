"""Layers that are like a borrowed one in all but what it learnt: what controls are made of."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.layer_tensors import LayerTensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def random_layer(tensors: LayerTensors, seed: int) -> LayerTensors:
    """As the same layer of a new model is: normal matrices, biases of 0, norms that only norm."""
    return _made(tensors, f"random {seed}", lambda name, tensor: _new(tensors, name, tensor, seed))


def permuted_layer(tensors: LayerTensors, seed: int) -> LayerTensors:
    """Its own entries at other places: rows and columns of each matrix exchanged independently,
    and the entries of each vector, so that every tensor keeps its distribution and its rank.
    """
    return _made(tensors, f"permuted {seed}", lambda name, tensor: _permuted(name, tensor, seed))


def _made(
    tensors: LayerTensors, made_from: str, make: Callable[[str, Tensor], Tensor]
) -> LayerTensors:
    made = {name: make(name, tensor) for name, tensor in tensors.tensors.items()}
    own = f"{made_from} of {tensors.identity.sha256}"
    identity = replace(tensors.identity, sha256=hash_tensors(made), made_from=own)
    return replace(tensors, tensors=made, identity=identity, bytes_read=0)


def _new(layer: LayerTensors, name: str, tensor: Tensor, seed: int) -> Tensor:
    if name.endswith("bias"):
        return torch.zeros_like(tensor)
    if tensor.ndim == 1:
        return torch.full_like(tensor, 1 - layer.layout.gain_offset)
    deviation = _deviation(layer.config, name)
    drawn = torch.empty(tensor.shape).normal_(generator=torch_stream(seed, "random layer", name))
    return drawn.mul_(deviation).to(tensor.dtype)


def _deviation(config: "PretrainedConfig", name: str) -> float:
    deviation = float(config.initializer_range)
    if config.model_type == "gpt2" and name.endswith("c_proj.weight"):
        # What adds to the stream, twice a layer, starts so small that the sum has unit scale
        # (Radford et al. 2019, section 2.3).
        deviation /= (2 * config.num_hidden_layers) ** 0.5
    return deviation


def _permuted(name: str, tensor: Tensor, seed: int) -> Tensor:
    for axis, size in enumerate(tensor.shape):
        order = torch.randperm(size, generator=torch_stream(seed, "permuted layer", name, axis))
        tensor = tensor.index_select(axis, order)
    return tensor
