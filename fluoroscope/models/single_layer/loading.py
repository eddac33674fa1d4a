"""Reads one layer of a large model: its configuration, the index of its files, and that layer.

    layer = load_layer("meta-llama/Llama-3.1-8B", -1, cache=folder)

takes the bytes of a layer from the hub, not those of the model, and never has more of it in memory
than twice the layer. What was read is kept as one safetensors file in `cache`, named by a hash of
the repository and commit (of a folder: what its files hold), layer, dtype and form, and is checked
by its own hash when it is read again.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import DamagedError, ModelError
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.blocks import block_shapes
from fluoroscope.models.single_layer.checkpoint import Checkpoint
from fluoroscope.models.single_layer.facts import check_layer, read_config
from fluoroscope.models.single_layer.known import llm_source
from fluoroscope.models.single_layer.layer_tensors import LayerIdentity, LayerTensors
from fluoroscope.models.single_layer.layouts import Form, Part, layout_of, parts_of
from fluoroscope.models.single_layer.reading import PickledShard, SafetensorsShard

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_VERSION = 1
"""Of what a cached file holds."""


def load_layer(
    source: str,
    layer: int,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    cache: Path | None = None,
    form: Form = "token",
) -> LayerTensors:
    """Layer `layer` (from 0; -1 is the last) of a folder or of a repository of the hub.

    The form "token" leaves out what has no effect on a sequence of one token. Without `cache`
    nothing is kept. Raises `ModelError` for what cannot be found or read, `DamagedError` for
    files that are not whole.
    """
    if dtype not in _DTYPES:
        raise ModelError(f"A dtype is one of {', '.join(_DTYPES)}, got {dtype!r}.")
    source = llm_source(source)
    checkpoint = Checkpoint.find(source, revision)
    config = read_config(source, checkpoint.revision or revision)
    layer = check_layer(layer, config.num_hidden_layers, source)
    identity = LayerIdentity(
        source=checkpoint.name,
        revision=checkpoint.revision,
        layer=layer,
        n_layers=config.num_hidden_layers,
        dtype=dtype,
        form=form,
        sha256="",
    )
    if cache is None:
        return _read(checkpoint, config, identity)
    path = _cache_path(cache, checkpoint, identity)
    found = _cached(path, config, identity)
    if found is None:
        found = _read(checkpoint, config, identity)
        write_tensors(path, found.tensors, found.identity.to_json())
    return found


def _read(
    checkpoint: Checkpoint, config: "PretrainedConfig", identity: LayerIdentity
) -> LayerTensors:
    parts = parts_of(layout_of(config), block_shapes(config, identity.layer), identity.form)
    opened: dict[str, SafetensorsShard | PickledShard] = {}
    index = checkpoint.index()
    if isinstance(index, str):
        opened[index] = checkpoint.open(index)
        index = dict.fromkeys(opened[index].names, index)
    prefix = _prefix(config, identity.layer, index, checkpoint.name)
    wanted = _by_file(prefix, parts, index, checkpoint.name)
    dtype = _DTYPES[identity.dtype]
    tensors: dict[str, Tensor] = {}
    for file, places in wanted.items():
        shard = opened.setdefault(file, opened.get(file) or checkpoint.open(file))
        for name, tensor in shard.read(places):
            tensors[name] = tensor.to(dtype)
    ordered = {name: tensors[name] for name in sorted(tensors)}
    identity = replace(identity, sha256=hash_tensors(ordered))
    return LayerTensors(
        ordered, config, identity, sum(shard.bytes_read for shard in opened.values())
    )


def _prefix(config: "PretrainedConfig", layer: int, index: Mapping[str, str], name: str) -> str:
    """What the names of the layer's tensors begin with, in a model with a head or without."""
    family = FAMILIES[config.model_type]
    own = f"{family.blocks}.{layer}."
    for prefix in (f"{family.prefix}.{own}", own):
        if any(place.startswith(prefix) for place in index):
            return prefix
    raise ModelError(
        f"{name} has no weights of layer {layer}: no tensor is called {family.prefix}.{own}... "
        f"Its config.json says that it has {config.num_hidden_layers} layers."
    )


def _by_file(
    prefix: str, parts: Mapping[str, Part], index: Mapping[str, str], name: str
) -> Mapping[str, Mapping[str, tuple[str, Part]]]:
    """File -> name -> what it is called there, and which part of it is meant."""
    found: dict[str, dict[str, tuple[str, Part]]] = {}
    missing = [part.source for part in parts.values() if prefix + part.source not in index]
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} tensors of a layer, the first is {prefix}{missing[0]}. "
            "A quantised or adapted model has others: take the one it was made of."
        )
    for own, part in parts.items():
        place = prefix + part.source
        found.setdefault(index[place], {})[own] = (place, part)
    return found


def _cache_path(cache: Path, checkpoint: Checkpoint, identity: LayerIdentity) -> Path:
    key = settings_hash([_VERSION, checkpoint.fingerprint(), identity.to_json()])
    name = re.sub(r"[^\w.-]+", "--", identity.source)
    stem = f"{name}-layer-{identity.layer}-{identity.dtype}-{identity.form}-{key[:16]}"
    return cache / f"{stem}.safetensors"


def _cached(path: Path, config: "PretrainedConfig", expected: LayerIdentity) -> LayerTensors | None:
    """What is in the cache; None where it is not there, or not whole."""
    if not path.exists():
        return None
    try:
        identity = LayerIdentity.from_json(read_metadata(path))
        found = LayerTensors(read_tensors(path), config, identity)
        found.check()
    except DamagedError:
        # Nothing is lost: the layer is read from where it came from.
        return None
    return found if replace(identity, sha256="") == expected else None
