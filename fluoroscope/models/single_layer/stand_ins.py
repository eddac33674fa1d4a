"""Layers that are like a borrowed one in all but what it learnt: what controls are made of."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.layer_tensors import LayerTensors


def random_layer(tensors: LayerTensors, seed: int) -> LayerTensors:
    """Normal entries of the same size, tensor by tensor: each has the root mean square of the real
    one, and norms have one gain. At the size of a new model's entries a layer adds next to nothing
    to a stream, and such a control is that of no layer at all.
    """
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
    wide = tensor.float()
    if tensor.ndim == 1 and not name.endswith("bias"):
        # A norm's gain, which some families store as what is added to 1.
        offset = layer.layout.gain_offset
        gain = (wide + offset).square().mean().sqrt()
        return torch.full_like(wide, float(gain) - offset).to(tensor.dtype)
    size = wide.square().mean().sqrt()
    drawn = torch.empty(tensor.shape).normal_(generator=torch_stream(seed, "random layer", name))
    return drawn.mul_(size).to(tensor.dtype)


def _permuted(name: str, tensor: Tensor, seed: int) -> Tensor:
    for axis, size in enumerate(tensor.shape):
        order = torch.randperm(size, generator=torch_stream(seed, "permuted layer", name, axis))
        tensor = tensor.index_select(axis, order)
    return tensor
