import errno
import math
from pathlib import Path

import polars
import pytest

from fluoroscope.core import storage
from fluoroscope.core.errors import DamagedError, DoesNotFitError
from fluoroscope.core.storage import (
    atomic_path,
    check_file,
    free_bytes,
    read_json,
    sha256_file,
    sha256_folder,
    write_csv,
    write_json,
    write_parquet,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_whole(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names_in(path.parent) == ["file.txt"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        polars.exceptions.ComputeError("underlying IO error: No space left (os error 28)"),
    ],
)
def test_a_full_disk_says_so_whoever_noticed_it(tmp_path, error):
    path = tmp_path / "file.txt"
    with pytest.raises(DoesNotFitError, match=r"disk is full.*file\.txt"), atomic_path(path):
        raise error
    assert names_in(tmp_path) == []


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "no")


def test_json_comes_back_and_its_bytes_do_not_depend_on_order(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"é": "→"}}
    write_json(tmp_path / "one.json", value)
    write_json(tmp_path / "two.json", dict(reversed(value.items())))
    assert read_json(tmp_path / "one.json") == value
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "one.json", math.nan)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_torn_json_file_is_called_damaged(tmp_path, content):
    path = tmp_path / "torn.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"torn\.json is not JSON any more"):
        read_json(path)


def test_tables_are_the_same_bytes_for_the_same_content(tmp_path):
    frame = polars.DataFrame({"layer": [0, 1], "fvu": [0.1, None], "name": ["a", "b,c"]})
    for name in ("one", "two"):
        write_csv(tmp_path / f"{name}.csv", frame)
        write_parquet(tmp_path / f"{name}.parquet", frame)
    for kind in ("csv", "parquet"):
        assert sha256_file(tmp_path / f"one.{kind}") == sha256_file(tmp_path / f"two.{kind}")
    assert polars.read_parquet(tmp_path / "one.parquet").equals(frame)


def test_a_folders_checksums_leave_out_what_a_killed_process_left(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "text")
    (tmp_path / "a" / ".b.txt.123.part").write_text("half")
    assert sha256_folder(tmp_path) == {"a/b.txt": sha256_file(tmp_path / "a" / "b.txt")}


def test_a_changed_byte_is_found_and_the_file_named(tmp_path):
    path = tmp_path / "shard.bin"
    path.write_bytes(b"0000")
    good = sha256_file(path)
    check_file(path, good)
    path.write_bytes(b"0001")
    with pytest.raises(DamagedError, match=r"shard\.bin is damaged.*run the same command again"):
        check_file(path, good)
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        check_file(path, good)


def test_free_space_is_known_of_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") > 0


def test_the_fingerprint_of_a_huge_file_sees_its_size_and_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK", 4)
    monkeypatch.setattr(storage, "_BLOCKS", 3)
    path = tmp_path / "weights"

    def fingerprint(content: bytes) -> str:
        path.write_bytes(content)
        [(name, found)] = storage.fingerprints([path])
        assert name == "weights"
        return found

    plain = bytes(40)
    assert fingerprint(plain) == fingerprint(plain)
    assert fingerprint(b"1" + plain[1:]) != fingerprint(plain)
    assert fingerprint(plain[1:] + b"1") != fingerprint(plain)
    assert fingerprint(plain + b"\0") != fingerprint(plain)
    assert fingerprint(b"short") == sha256_file(path)


def test_all_files_share_what_is_read_for_fingerprints(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK", 4)
    monkeypatch.setattr(storage, "_BLOCKS", 8)
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        path.write_bytes(bytes(40))
    found = storage.fingerprints(paths)
    assert [name for name, _ in found] == ["0", "1", "2", "3"]
    # Two blocks are left for each: the first and the last.
    paths[0].write_bytes(bytes(20) + b"1" + bytes(19))
    paths[1].write_bytes(bytes(39) + b"1")
    again = storage.fingerprints(paths)
    assert [a == b for a, b in zip(found, again, strict=True)] == [True, False, True, True]
