"""Control vectors in GGUF, the format of repeng and llama.cpp.

    general.architecture       "controlvector"
    controlvector.model_hint   the model's type; repeng needs it, llama.cpp does not look at it
    controlvector.layer_count  number of directions
    direction.{layer}          float32 [d_model], added to what block `layer` (from 0) gives

So `direction.7` is our `7.resid_post`. Blocks that are not named are left alone, and both
programs add the direction, times a coefficient of their own, at every position. llama.cpp
refuses a file that holds `direction.0`; repeng, which trains none, takes it.

What the format has no place for goes into a key of our own, `fluoroscope.vector`, which others
skip.
"""

import json
import re
import warnings
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.config import canonical_json
from fluoroscope.core.errors import DamagedError, InterventionError, UserError
from fluoroscope.core.storage import atomic_path
from fluoroscope.models.hook_points import HookPoint

_ARCHITECTURE = "controlvector"
_HINT, _COUNT = f"{_ARCHITECTURE}.model_hint", f"{_ARCHITECTURE}.layer_count"
_ABOUT = "fluoroscope.vector"
_NAME = re.compile(r"direction\.(0|[1-9]\d*)")


class ControlVector(NamedTuple):
    """What such a file holds."""

    directions: Mapping[HookPoint, Float[Tensor, " d_model"]]
    model_hint: str | None
    about: Any = None  # Any: a JSON value.
    """What Fluoroscope wrote beside; None in files of others."""


def read_gguf(path: Path) -> ControlVector:
    """A control vector of whoever wrote it; anything else is a `UserError`."""
    _check_installed()
    from gguf import GGUFReader

    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        reader = GGUFReader(path)
        fields = {
            name: None if (field := reader.get_field(name)) is None else field.contents()
            for name in ("general.architecture", _HINT, _ABOUT)
        }
    except Exception as error:  # The reader has no error of its own for what is no GGUF file.
        raise DamagedError(f"{path} is not a whole GGUF file: {error}.") from None
    if fields["general.architecture"] != _ARCHITECTURE:
        raise UserError(
            f"{path} is no control vector: its architecture should be {_ARCHITECTURE!r}, it is "
            f"{fields['general.architecture']!r}. A model in GGUF cannot be read here."
        )
    directions = {
        _point_of(path, tensor.name): _direction_of(path, tensor.name, tensor.data)
        for tensor in reader.tensors
    }
    about = fields[_ABOUT]
    return ControlVector(
        dict(sorted(directions.items())),
        fields[_HINT],
        None if about is None else _parsed(path, str(about)),
    )


def write_gguf(path: Path, vector: ControlVector) -> None:
    """The same bytes for the same content; hook points other than `resid_post` are refused."""
    _check_installed()
    from gguf import GGUFWriter

    directions = dict(sorted(vector.directions.items()))
    other = [str(point) for point in directions if point.stream != "resid_post"]
    if other:
        raise InterventionError(
            f"A control vector in GGUF is added to what blocks give (resid_post), and this one "
            f"acts at {', '.join(other)} too. Leave that out, or save it with save_vector."
        )
    if any(point.layer == 0 for point in directions):
        warnings.warn(
            f"{path.name} holds a direction of layer 0, which repeng reads and llama.cpp refuses.",
            stacklevel=3,
        )
    with (
        atomic_path(path) as temporary,
        closing(GGUFWriter(temporary, _ARCHITECTURE)) as writer,
    ):
        writer.add_string(_HINT, vector.model_hint or "")
        writer.add_uint32(_COUNT, len(directions))
        if vector.about is not None:
            writer.add_string(_ABOUT, canonical_json(vector.about))
        for point, direction in directions.items():
            values = direction.detach().cpu().to(torch.float32).numpy()
            writer.add_tensor(f"direction.{point.layer}", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _check_installed() -> None:
    if find_spec("gguf") is None:
        raise UserError(
            "Vectors in GGUF need the package gguf, which is not here. Install it with "
            "`pip install 'fluoroscope[gguf]'`, or use a vector in safetensors."
        )


def _point_of(path: Path, name: str) -> HookPoint:
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserError(
            f"{path} holds a tensor {name!r}; those of a control vector are direction.LAYER."
        )
    return HookPoint(int(found[1]), "resid_post")


def _direction_of(path: Path, name: str, data: np.ndarray) -> Float[Tensor, " d_model"]:
    # Quantised tensors come as bytes.
    if data.dtype.kind != "f" or data.ndim != 1:
        raise UserError(
            f"{name} in {path} must be floats [d_model]; it is {data.dtype} {list(data.shape)}."
        )
    return torch.from_numpy(np.array(data, dtype=np.float32))


def _parsed(path: Path, text: str) -> Any:  # Any: a JSON value.
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedError(f"{_ABOUT} in {path} is not JSON ({error}).") from None
