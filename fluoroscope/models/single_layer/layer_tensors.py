"""The weights of one layer, and what tells them from those of another."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluoroscope.core.errors import DamagedError
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.layouts import Form, Layout, Part, layout_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class LayerIdentity:
    """Goes with everything that was made with a layer, whose weights are not kept with it."""

    source: str
    """The hub id, or the name (not the path) of the folder."""

    revision: str | None
    """The hub commit, where the layer came from the hub."""

    layer: int
    """From 0."""

    n_layers: int
    dtype: str
    form: Form
    sha256: str
    """Of the names, dtypes, shapes and bytes of the tensors."""

    made_from: str | None = None
    """What was done to the layer's own tensors, with which seed; None where nothing was."""

    def to_json(self) -> dict[str, str | int | None]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "LayerIdentity":
        """Raises `DamagedError` where `value` is not what `to_json` gave."""
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(cls)}:
            raise DamagedError(
                f"A layer's identity has the entries {', '.join(f.name for f in fields(cls))}; "
                f"got {value}. Delete its file and run again."
            )
        return cls(**value)


@dataclass(frozen=True)
class LayerTensors:
    """The weights of one layer: all of them, or those that matter to a single token."""

    tensors: Mapping[str, Tensor]
    """By name, without the layer's prefix; values cut from a fused tensor are `...value`."""

    config: "PretrainedConfig"
    """Of the whole model."""

    identity: LayerIdentity
    bytes_read: int = 0
    """Of weights, from disk or from the network; 0 where they came from the cache."""

    @property
    def family(self) -> str:
        return self.config.model_type

    @property
    def layout(self) -> Layout:
        return layout_of(self.config)

    @property
    def d_model(self) -> int:
        return self.config.hidden_size

    def check(self) -> None:
        """Raises `DamagedError` unless the tensors are those of the identity."""
        if hash_tensors(self.tensors) != self.identity.sha256:
            raise DamagedError(
                f"The tensors of layer {self.identity.layer} of {self.identity.source} are not "
                f"those of SHA-256 {self.identity.sha256[:16]}.... Load the layer again."
            )


def take(tensor: Tensor, part: Part) -> Tensor:
    """What a part has of its source, with memory of its own where that is not all of it."""
    if part.cut is None:
        return tensor
    stride, start, stop, axis = part.cut
    pieces = tensor.unflatten(axis, (-1, stride)).narrow(axis + 1, start, stop - start)
    return pieces.flatten(axis, axis + 1).clone(memory_format=torch.contiguous_format)
