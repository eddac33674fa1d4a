"""A safetensors file of rows that is written tile by tile, so that it never is in memory.

The format puts a header with the shape before the data. Room is left for it, and it is
written last, filled up with spaces as the format allows.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Shaped
from torch import Tensor

from fluoroscope.activations.extract_config import BYTES_PER_NUMBER, StoreDtype
from fluoroscope.core.config import canonical_json
from fluoroscope.core.storage import atomic_path

TENSOR = "activations"

_HEADER_BYTES = 4096
_DTYPES: dict[StoreDtype, str] = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


class RowFile:
    """An open file that takes rows of its dtype."""

    def __init__(self, file: BinaryIO, dtype: StoreDtype) -> None:
        self._file = file
        self._dtype: StoreDtype = dtype
        self._shape = (0, 0)
        file.seek(8 + _HEADER_BYTES)

    def append(self, rows: Shaped[Tensor, "rows d_model"]) -> None:
        plain = rows.detach().cpu().contiguous()
        self._file.write(plain.view(torch.uint8).numpy().data)
        self._shape = (self._shape[0] + plain.shape[0], plain.shape[1])

    def write_header(self, metadata: object) -> None:
        n_bytes = self._shape[0] * self._shape[1] * BYTES_PER_NUMBER[self._dtype]
        tensor = {
            "dtype": _DTYPES[self._dtype],
            "shape": self._shape,
            "data_offsets": [0, n_bytes],
        }
        described = {"__metadata__": {"fluoroscope": canonical_json(metadata)}, TENSOR: tensor}
        header = json.dumps(described).encode()
        if len(header) > _HEADER_BYTES:
            raise ValueError(f"The metadata of a row file takes {len(header)} bytes, too many.")
        self._file.seek(0)
        self._file.write(_HEADER_BYTES.to_bytes(8, "little") + header.ljust(_HEADER_BYTES))


@contextmanager
def row_file(path: Path, dtype: StoreDtype, metadata: object) -> Iterator[RowFile]:
    """A file to append rows to; whole on leaving without an error, absent otherwise."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        rows = RowFile(file, dtype)
        yield rows
        rows.write_header(metadata)
