"""A model's name or folder -> a folder with its files, and clear words where there is none.

A folder is used as it is, without any network access; so is a model that comes with the package
(`SHIPPED`; a folder of the same name is `./organism`). A hub id is fetched into the hub's own
cache; without a network the cache alone is used. Weights are taken as safetensors; older
repositories without them fall back to PyTorch files, of which only tensors are ever read.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ModelError
from fluoroscope.core.storage import COMMIT, fingerprints

_TIMEOUT_S = 10.0
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SAFE = "model*.safetensors"
_UNSAFE = "pytorch_model*.bin"
TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
]

_NO_VOCABULARY = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)


SHIPPED: Mapping[str, Path] = {"organism": Path(__file__).parents[1] / "organism" / "weights"}
"""Models that come with the package, by the name that they go by everywhere."""


class ModelFiles(NamedTuple):
    """Where a model's files lie, and the hub commit they are of."""

    folder: Path
    revision: str | None


def find_model(
    name_or_folder: str, revision: str | None = None, patterns: list[str] | None = None
) -> ModelFiles:
    """The folder of a model; of a hub model the files like `patterns` are fetched, or all."""
    # Before folders: the name means the same model wherever it is said.
    folder = SHIPPED.get(name_or_folder, Path(name_or_folder).expanduser())
    if folder.is_dir():
        return ModelFiles(folder, None)
    if folder.exists():
        raise ModelError(f"A model is a folder or a hub id; {name_or_folder} is a file.")
    if not _HUB_ID.fullmatch(name_or_folder):
        raise ModelError(f"There is no model folder {name_or_folder}.")
    return _fetch(name_or_folder, revision, patterns)


def find_config(name_or_folder: str, revision: str | None = None) -> Path:
    """The config.json of a model; of a hub model only that file is fetched."""
    folder = find_model(name_or_folder, revision, ["config.json"]).folder
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json, which says what the model is.")
    return path


def model_fingerprint(name_or_folder: str, revision: str | None = None) -> str:
    """What tells a model from another of the same name, without reading it whole.

    `commit:...` of a hub model; of a folder, a hash over `fingerprints` of its files. Raises
    `ModelError` where the weights or the tokenizer are missing; hub weights are not fetched.
    """
    folder, commit = find_model(name_or_folder, revision, TEXT_FILES)
    words = tokenizer_files(folder)
    if commit is not None:
        return f"{COMMIT}{commit}"
    files = [*weight_files(folder), *words, find_config(str(folder))]
    try:
        return settings_hash(fingerprints(files))
    except OSError as error:
        raise ModelError(f"A file of the model {folder} cannot be read: {error}.") from None


def weight_files(folder: Path) -> list[Path]:
    """The weights in `folder`: safetensors if there are any, otherwise PyTorch files."""
    found = sorted(folder.glob(_SAFE)) or sorted(folder.glob(_UNSAFE))
    if not found:
        raise ModelError(f"{folder} has no weights: no {_SAFE} file is in it.")
    return found


def tokenizer_files(folder: Path) -> list[Path]:
    """The files in `folder` that decide how text is cut."""
    found = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not [file for file in found if file.name not in _NO_VOCABULARY]:
        raise ModelError(
            f"{folder} has no tokenizer: none of tokenizer.json, tokenizer.model, vocab.json, "
            "vocab.txt is in it. Save the model's tokenizer there."
        )
    return found


def _fetch(name: str, revision: str | None, patterns: list[str] | None = None) -> ModelFiles:
    try:
        info = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT_S)
        if patterns is None:
            files = [file.rfilename for file in info.siblings or []]
            is_safe = any(fnmatch(file, _SAFE) for file in files)
            patterns = [*TEXT_FILES, _SAFE if is_safe else _UNSAFE]
        # Folders below hold the same weights again, in other formats.
        folder = snapshot_download(
            name, revision=info.sha, allow_patterns=patterns, ignore_patterns=["*/*"]
        )
        return ModelFiles(Path(folder), info.sha)
    except GatedRepoError:
        raise ModelError(
            f"The model {name} is gated: ask for access at https://huggingface.co/{name}, then "
            "log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"The model {name} has no revision {revision!r}.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"There is no model {name}: it is not a folder here, and the hub has none of that "
            "name, or a private one (log in with `hf auth login`)."
        ) from None
    except HfHubHTTPError as error:
        return _cached(name, revision, f"the hub refused: {_first_line(error)}")
    except Exception as error:  # Each transport below the hub client raises its own.
        return _cached(name, revision, f"the hub cannot be reached ({_first_line(error)})")


def _cached(name: str, revision: str | None, reason: str) -> ModelFiles:
    try:
        folder = snapshot_download(name, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        raise ModelError(
            f"The model {name} cannot be had: it is not a folder here, not in the hub's cache, "
            f"and {reason}. Give the folder of a downloaded model, or connect and try again."
        ) from None
    commit = Path(folder).name
    return ModelFiles(Path(folder), commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
