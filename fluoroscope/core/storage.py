"""Files that are whole or absent, the same bytes for the same content, and checkable.

Everything is written beside its place and renamed, so that a killed process leaves the old
file or the new one, never half of one. No file written here holds a time or a path.
Tensor files are in `tensors.py`, so that this module stays free of torch.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoroscope.core.errors import DamagedError, DoesNotFitError

if TYPE_CHECKING:
    import polars

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK, _BLOCKS = 1 << 20, 256

COMMIT = "commit:"
"""Begins the fingerprint of what can be fetched again as it was; no file's begins so."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on leaving without an error it takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with full_disk_named(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def full_disk_named(what: object) -> Iterator[None]:
    """Turns a full disk, in whoever's words, into the error that says what to do about it."""
    try:
        yield
    except Exception as error:
        if is_full_disk(error):
            raise DoesNotFitError(
                f"The disk is full: {what} could not be written. Free some space and run the "
                "same command again; it goes on where it stopped."
            ) from error
        raise


def is_full_disk(error: Exception) -> bool:
    # Polars and safetensors report the system's error in words of their own, without a number.
    texts = [f"(os error {number})" for number in _FULL]
    return getattr(error, "errno", None) in _FULL or any(text in str(error) for text in texts)


def _sync(path: Path) -> None:
    # Without this a power cut can leave a renamed but empty file.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Sorted keys, two spaces, a newline at the end; NaN is refused, as JSON has none."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:  # Any: nested JSON values.
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"{path} is not JSON any more ({error}). Delete it and run the same command again."
        ) from None


def write_parquet(path: Path, frame: "polars.DataFrame") -> None:
    with atomic_path(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)


def write_csv(path: Path, frame: "polars.DataFrame") -> None:
    with atomic_path(path) as temporary:
        frame.write_csv(temporary)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprints(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """The name of each file and a hash that tells it from another in its place, in moments.

    256 MiB are read of all files together. A file that is no larger than its part has its
    SHA-256; of a larger one it is the hash of its size and of blocks of 1 MiB, evenly spread from
    the first to the last (two at least), so a small edit of it can pass unseen.
    """
    n_blocks = max(2, _BLOCKS // max(1, len(paths)))
    return [(path.name, _fingerprint(path, n_blocks)) for path in paths]


def _fingerprint(path: Path, n_blocks: int) -> str:
    size = path.stat().st_size
    if size <= _BLOCK * n_blocks:
        return sha256_file(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(n_blocks):
            file.seek((size - _BLOCK) * i // (n_blocks - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def sha256_folder(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `folder`, sorted by path.

    What a killed process left half-written (see `atomic_path`) is not part of the folder.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def check_file(path: Path, sha256: str) -> None:
    """Raises `DamagedError` unless the file exists and has this checksum."""
    if not path.exists():
        raise DamagedError(f"{path} is missing. Delete its step's folder and run again.")
    found = sha256_file(path)
    if found != sha256:
        raise DamagedError(
            f"{path} is damaged: its SHA-256 should be {sha256[:16]}..., it is {found[:16]}.... "
            "Delete its step's folder and run the same command again to make it anew."
        )


def free_bytes(path: Path) -> int:
    """Free disk space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
