"""What is whole: a manifest in every finished shard and step, with the SHA-256 of each file.

A shard's manifest (`shard.json`) is written before its folder is renamed into place, a step's
(`done.json`) after its merge. Both name the manifests of the step's inputs by their hash, so that
work made from other inputs is never taken for this one's, and both are byte-stable.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fluoroscope.core.errors import DamagedError
from fluoroscope.core.storage import read_json, sha256_file, sha256_folder, write_json
from fluoroscope.runs.run import DONE

SHARD = "shard.json"
SHARDS = "shards"
STATE = "state"
PARTIAL = "partial"

Hashes = Mapping[str, str]


def begin_shard(step_folder: Path, key: str) -> Path:
    """An empty folder to do a shard in; what a killed attempt left there is gone."""
    folder = step_folder / PARTIAL / key
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def seal_shard(step_folder: Path, key: str, inputs: Hashes) -> None:
    """Makes the finished folder of a shard visible, all at once."""
    folder = step_folder / PARTIAL / key
    write_json(folder / SHARD, {"files": sha256_folder(folder), "inputs": dict(inputs)})
    place = step_folder / SHARDS / key
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)
    state_file(step_folder, key).unlink(missing_ok=True)


def state_file(step_folder: Path, key: str) -> Path:
    return step_folder / STATE / f"{key}.safetensors"


def shard_is_whole(step_folder: Path, key: str, inputs: Hashes, *, verify: bool) -> bool:
    """False where it is yet to be done; `DamagedError` where its files have changed."""
    folder = step_folder / SHARDS / key
    if not (folder / SHARD).exists():
        return False
    manifest = read_json(folder / SHARD)
    if manifest["inputs"] != dict(inputs):
        return False
    if verify:
        _check(folder, manifest["files"], f"Delete the folder {folder}")
    return True


def tidy_step(step_folder: Path, keys: set[str], inputs: Hashes) -> None:
    """Removes half-done work, and shards that are not, or not any more, the step's."""
    (step_folder / SHARDS).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(step_folder / PARTIAL, ignore_errors=True)
    for folder in (step_folder / SHARDS).iterdir():
        is_current = folder.name in keys and (folder / SHARD).exists()
        if not is_current or read_json(folder / SHARD)["inputs"] != dict(inputs):
            shutil.rmtree(folder)
    _clear_merge(step_folder)
    for leftover in step_folder.glob("state/.*.part"):
        leftover.unlink()


def _clear_merge(step_folder: Path) -> None:
    # A merge that was killed may have left files that the next one would not write.
    (step_folder / DONE).unlink(missing_ok=True)
    for path in step_folder.iterdir():
        if path.name in (SHARDS, STATE):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def seal_step(step_folder: Path, inputs: Hashes) -> None:
    """Writes the manifest that says the step is done."""
    shutil.rmtree(step_folder / STATE, ignore_errors=True)
    shutil.rmtree(step_folder / PARTIAL, ignore_errors=True)
    write_json(step_folder / DONE, {"files": _step_hashes(step_folder), "inputs": dict(inputs)})


def _step_hashes(step_folder: Path) -> dict[str, str]:
    # Shards were hashed by whoever made them; terabytes are not read again for this.
    hashes: dict[str, str] = {}
    for path in sorted(step_folder.iterdir()):
        if path.name == SHARDS:
            for shard in sorted(path.iterdir()):
                prefix = f"{SHARDS}/{shard.name}"
                files = read_json(shard / SHARD)["files"]
                hashes |= {f"{prefix}/{name}": value for name, value in files.items()}
                hashes[f"{prefix}/{SHARD}"] = sha256_file(shard / SHARD)
        elif path.is_dir():
            hashes |= {f"{path.name}/{name}": h for name, h in sha256_folder(path).items()}
        else:
            hashes[path.name] = sha256_file(path)
    return dict(sorted(hashes.items()))


def step_is_done(step_folder: Path, inputs: Hashes, *, verify: bool) -> bool:
    """False where it is yet to be done, or a shard of it was deleted to be made anew."""
    if not (step_folder / DONE).exists():
        return False
    manifest = read_json(step_folder / DONE)
    shards = {name.split("/")[1] for name in manifest["files"] if name.startswith(f"{SHARDS}/")}
    if manifest["inputs"] != dict(inputs):
        return False
    if not all((step_folder / SHARDS / shard).is_dir() for shard in shards):
        return False
    if verify:
        _check(step_folder, manifest["files"], f"Delete {step_folder / DONE}")
    return True


def _check(folder: Path, files: Hashes, remedy: str) -> None:
    for name, expected in files.items():
        path = folder / name
        found = sha256_file(path) if path.exists() else None
        if found == expected:
            continue
        if name.startswith(f"{SHARDS}/"):
            remedy = f"Delete the folder {folder / SHARDS / name.split('/')[1]}"
        state = f"its SHA-256 should be {expected[:16]}..., it is {found[:16]}..." if found else ""
        raise DamagedError(
            f"{path} is {f'damaged: {state}' if found else 'missing'}. {remedy} and run the same "
            "command again: only that is made anew."
        )


def write_report_manifest(folder: Path, inputs: Hashes, names: tuple[str, ...]) -> None:
    """The run's own done.json: its steps' manifests and the files of its report."""
    paths = [path for name in names for path in _files(folder / name)]
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(paths)}
    write_json(folder / DONE, {"files": files, "inputs": dict(inputs)})


def report_is_done(folder: Path, inputs: Hashes) -> bool:
    """A report is cheap, so a file of it that is missing or was changed means: write it anew."""
    if not (folder / DONE).exists():
        return False
    manifest = read_json(folder / DONE)
    paths = {folder / name: sha256 for name, sha256 in manifest["files"].items()}
    return manifest["inputs"] == dict(inputs) and all(
        path.exists() and sha256_file(path) == sha256 for path, sha256 in paths.items()
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [Path(parent) / name for parent, _, names in os.walk(path) for name in names]
    return [path] if path.exists() else []
