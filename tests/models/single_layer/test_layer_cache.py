import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_layers import saved

from fluoroscope.models.single_layer.loading import load_layer


@pytest.fixture
def folder(tmp_path: Path) -> str:
    saved(tmp_path / "it")
    return str(tmp_path / "it")


def test_a_cached_layer_is_the_layer_and_its_weights_are_not_read_again(folder, tmp_path):
    read = load_layer(folder, -1, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name.startswith("it-layer-2-float32-token-")
    again = load_layer(folder, 2, cache=tmp_path / "cache")
    assert again.bytes_read == 0 < read.bytes_read
    assert again.identity == read.identity == load_layer(folder, 2).identity
    assert all(torch.equal(again.tensors[name], read.tensors[name]) for name in read.tensors)


def test_another_layer_dtype_form_or_content_is_another_file(folder, tmp_path):
    cache = tmp_path / "cache"
    load_layer(folder, 0, cache=cache)
    load_layer(folder, 1, cache=cache)
    load_layer(folder, 0, cache=cache, dtype="bfloat16")
    load_layer(folder, 0, cache=cache, form="sequence")
    before = load_layer(folder, 0, cache=cache).identity
    assert len(list(cache.iterdir())) == 4
    saved(tmp_path / "it", seed=1)
    changed = load_layer(folder, 0, cache=cache)
    assert changed.identity.sha256 != before.sha256
    assert len(list(cache.iterdir())) == 5


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty])
def test_a_damaged_file_of_the_cache_is_made_anew(damage, folder, tmp_path):
    cache = tmp_path / "cache"
    read = load_layer(folder, 0, cache=cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    damage(file)
    again = load_layer(folder, 0, cache=cache)
    assert again.identity == read.identity
    assert again.bytes_read == read.bytes_read
    assert file.read_bytes() == whole


LOAD = """
import sys
from pathlib import Path
from fluoroscope.models.single_layer.loading import load_layer

sys.stdin.readline()
print(load_layer(sys.argv[1], 0, cache=Path(sys.argv[2])).identity.sha256)
"""


@pytest.mark.slow
def test_two_processes_may_fill_the_cache_at_once(folder, tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", LOAD, folder, str(cache)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    expected = load_layer(folder, 0).identity.sha256
    assert [process.communicate()[0].strip() for process in both] == [expected, expected]
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    assert load_layer(folder, 0, cache=cache).bytes_read == 0
