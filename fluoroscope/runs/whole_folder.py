"""A folder of results for people, made beside its place and renamed: whole or absent.

It may take the place of an earlier one of its kind that nobody changed, which stands beside it
(`.NAME.old`) while the two are exchanged; anything else that is there is never written over.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import full_disk_named, read_json, sha256_folder


@contextmanager
def whole_folder(
    to: Path, manifest: str, made_as: str, may_hold: Sequence[str] = ()
) -> Iterator[Path]:
    """An empty folder that takes the place of `to` when it is left without an error.

    Whoever fills it writes `manifest`, a JSON file with `format` (`made_as`) and `files`: the
    SHA-256 of all others. `may_hold` names files that other programs leave and can make again.
    """
    place = to.resolve()
    _check_place(place, manifest, made_as, may_hold)
    place.parent.mkdir(parents=True, exist_ok=True)
    making = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(making, ignore_errors=True)
    _remove_leftovers(place)
    try:
        with full_disk_named(to):
            making.mkdir()
            yield making
            _exchange(making, place)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    """What processes that were killed while they filled a folder for `place` left beside it."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.([1-9]\d{{0,8}})\.part")
    for beside in list(place.parent.iterdir()):
        match = pattern.fullmatch(beside.name)
        if match and beside.is_dir() and not psutil.pid_exists(int(match[1])):
            shutil.rmtree(beside, ignore_errors=True)


def _check_place(place: Path, manifest: str, made_as: str, may_hold: Sequence[str]) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise ConfigError(f"{place} is a file; --to names a folder.")
    if not any(place.iterdir()):
        return
    again = "Nothing is written over it: give another folder, or move what is there."
    about = read_json(place / manifest) if (place / manifest).exists() else {}
    if not isinstance(about, dict) or about.get("format") != made_as:
        raise ConfigError(f"{place} holds files that this command did not write. {again}")
    for name, sha256 in sha256_folder(place).items():
        if name == manifest or name in may_hold:
            continue
        if name not in about["files"]:
            raise ConfigError(
                f"{place} was written by this command, and holds {name}, which was not. {again}"
            )
        if about["files"][name] != sha256:
            raise ConfigError(
                f"{place} was written by this command, and its {name} was changed since. {again}"
            )


def _exchange(made: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    if place.exists() and any(place.iterdir()):
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    # A folder may be renamed over one that is empty.
    made.rename(place)
    shutil.rmtree(old, ignore_errors=True)
