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
from fluoroscope.core.errors import DamagedError, DoesNotFitError
from fluoroscope.core.storage import atomic_path

State = dict[str, Any]  # Any: Tensor, JSON value, or a State below it.

_KEY = "fluoroscope"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: object = None) -> None:
    """`tensors` and a JSON `metadata` value, written whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            # One key only: safetensors writes several in the random order of a hash map.
            save_file(plain, temporary, {_KEY: canonical_json(metadata)})
        except SafetensorError as error:
            # safetensors reports a full disk as its own error, not as an OSError.
            if "No space left" in str(error) or "os error 28" in str(error):
                raise DoesNotFitError(f"The disk is full: {path} could not be written.") from error
            raise


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
    """A nested state as one file: tensors by dotted path, the rest as metadata."""
    tensors: dict[str, Tensor] = {}
    rest = _split(state, "", tensors)
    write_tensors(path, tensors, rest)


def read_state(path: Path) -> State:
    tensors = read_tensors(path)
    return _join(read_metadata(path), tensors)


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:  # Any: see State.
    if isinstance(value, Tensor):
        # A clone: safetensors refuses tensors that share memory.
        tensors[path] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"__tensor__": path}
    if isinstance(value, Mapping):
        return {key: _split(item, f"{path}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # Any: see State.
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
