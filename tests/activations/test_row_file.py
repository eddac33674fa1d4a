import errno
from pathlib import Path

import pytest
import torch

from fluoroscope.activations.extract_config import StoreDtype
from fluoroscope.activations.row_file import TENSOR, RowFile, row_file
from fluoroscope.core.errors import DoesNotFitError
from fluoroscope.core.tensors import read_metadata, read_tensors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_appended_in_pieces_are_read_back_as_one_tensor(tmp_path: Path, dtype: StoreDtype):
    path = tmp_path / "0.resid_post.safetensors"
    rows = torch.randn(50, 7).to(getattr(torch, dtype))
    with row_file(path, dtype, {"hook_point": "0.resid_post"}) as file:
        for piece in rows.split(13):
            file.append(piece)
    assert torch.equal(read_tensors(path)[TENSOR], rows)
    assert read_metadata(path) == {"hook_point": "0.resid_post"}


def test_a_file_is_absent_when_its_writing_failed(tmp_path: Path):
    def write_and_fail() -> None:
        with row_file(tmp_path / "rows.safetensors", "float32", None) as file:
            file.append(torch.ones(3, 2))
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # raised just above, without a message
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_file: RowFile, _rows: torch.Tensor) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RowFile, "append", fail)
    with (
        pytest.raises(DoesNotFitError, match="disk is full"),
        row_file(tmp_path / "rows.safetensors", "float32", None) as file,
    ):
        file.append(torch.ones(3, 2))
    assert list(tmp_path.iterdir()) == []
