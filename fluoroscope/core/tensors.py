"""Tensor files: safetensors with one canonical JSON string of metadata, and nested states.

A `State` is what a loop needs to go on: nested dictionaries of tensors and JSON values. It
is one file, hence atomic, and its bytes depend on its content alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fluoroscope.core.config import canonical_json
from fluoroscope.core.errors import DamagedError
from fluoroscope.core.storage import atomic_path

State = dict[str, Any]  # Any: Tensor, JSON value, or a State below it.

_KEY = "fluoroscope"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: object = None) -> None:
    """`tensors` and a JSON `metadata` value, written whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # One key only: safetensors writes several in the random order of a hash map.
        save_file(plain, temporary, {_KEY: canonical_json(metadata)})


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a file; memory-mapped, so untouched pages cost nothing."""
    with open_tensors(path, device) as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}


def read_metadata(path: Path) -> Any:  # Any: the JSON value given to `write_tensors`.
    with open_tensors(path) as file:
        return json.loads((file.metadata() or {}).get(_KEY, "null"))


def open_tensors(path: Path, device: str = "cpu") -> safe_open:
    try:
        return safe_open(path, framework="pt", device=device)
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing.") from None
    except SafetensorError as error:
        raise DamagedError(
            f"{path} is not a whole safetensors file ({error}). Delete it and run again."
        ) from None


def write_state(path: Path, state: State) -> None:
    """A nested state as one file: tensors by dotted path, the rest as metadata.

    `read_state` gives back the same: tuples and keys that are numbers (an optimiser has both)
    survive, which JSON alone would not let them.
    """
    tensors: dict[str, Tensor] = {}
    rest = _split(state, "", tensors)
    write_tensors(path, tensors, rest)


def read_state(path: Path) -> State:
    tensors = read_tensors(path)
    return _join(read_metadata(path), tensors)


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:  # Any: see State.
    if isinstance(value, Tensor):
        name = path or "value"
        while name in tensors:
            name += "'"  # {"a.b": ...} and {"a": {"b": ...}} have the same dotted path.
        # A clone: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        parts = {key: _split(item, _below(path, key), tensors) for key, item in value.items()}
        is_plain = all(isinstance(key, str) and not key.startswith("__") for key in parts)
        return parts if is_plain else {"__items__": [[key, part] for key, part in parts.items()]}
    if isinstance(value, list | tuple):
        items = [_split(item, _below(path, i), tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"__tuple__": items}
    return value


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # Any: see State.
    match value:
        case {"__tensor__": name}:
            return tensors[name]
        case {"__items__": items}:
            return {_join(key, tensors): _join(item, tensors) for key, item in items}
        case {"__tuple__": items}:
            return tuple(_join(item, tensors) for item in items)
        case dict():
            return {key: _join(item, tensors) for key, item in value.items()}
        case list():
            return [_join(item, tensors) for item in value]
        case _:
            return value
