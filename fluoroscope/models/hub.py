"""A model's name or folder -> a folder with its files, and clear words where there is none.
Also single files of any repository, whose content is known before they are fetched.

A folder is used as it is, without any network access; so is a model that comes with the package
(`SHIPPED`; a folder of the same name is `./organism`). A hub id is fetched into the hub's own
cache; without a network the cache alone is used. Weights are taken as safetensors; older
repositories without them fall back to PyTorch files, of which only tensors are ever read.
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeVar

from huggingface_hub import (
    HfApi,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ModelError, UserError
from fluoroscope.core.storage import COMMIT, fingerprints, full_disk_named, sha256_file

_TIMEOUT_S = 10.0
_ATTEMPTS = 4
"""How often a file that breaks off on its way is asked for, each time from where it ended."""

_PARTIAL = 206

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


class Repository(NamedTuple):
    """What a hub repository holds at one commit."""

    name: str
    commit: str | None
    """None only where a cache does not say it."""

    files: tuple[str, ...]
    is_cached: bool
    """Whether the hub could not be asked, so that only files of the cache are listed."""


def find_repository(name: str, revision: str | None = None) -> Repository:
    """The names of its files; nothing is fetched. Without a network, those in the cache."""

    def ask() -> Repository:
        info = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT_S)
        files = sorted(file.rfilename for file in info.siblings or [])
        return Repository(name, info.sha, tuple(files), is_cached=False)

    def from_cache(reason: str) -> Repository:
        folder, commit = _cached(name, revision, reason, "repository")
        files = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        return Repository(name, commit, tuple(files), is_cached=True)

    return _ask(name, revision, ask, from_cache, "repository")


def hub_file_sha256(repository: Repository, file: str) -> str:
    """The SHA-256 of a file's content, as the hub knows it; a large file is not fetched for it."""

    def ask() -> str:
        found = HfApi().get_paths_info(repository.name, [file], revision=repository.commit)
        large = getattr(found[0], "lfs", None) if found else None
        # Git itself keeps small files, under a hash of another kind.
        return large.sha256 if large is not None else of_content()

    def of_content() -> str:
        return content_sha256(fetch_file(repository.name, repository.commit, file))

    if repository.is_cached:
        return of_content()
    return _ask(repository.name, repository.commit, ask, lambda _: of_content(), "repository")


def fetch_file(name: str, revision: str | None, file: str) -> Path:
    """One file of a repository, in the hub's own cache; a commit that is there needs no network."""

    def ask() -> Path:
        try:
            with full_disk_named(f"{file} of {name}"):
                return Path(hf_hub_download(name, file, revision=revision))
        except LocalEntryNotFoundError as error:
            return missing(f"the hub cannot be reached ({_first_line(error)})")
        except EntryNotFoundError:
            at = f" at {revision}" if revision else ""
            raise ModelError(f"The repository {name}{at} has no file {file}.") from None

    def missing(reason: str) -> Path:
        raise ModelError(
            f"{file} of {name} cannot be had: it is not in the hub's cache, and {reason}. Fetch it "
            f"where there is a network with `hf download {name} {file}`, or name the folder of a "
            "copy."
        )

    return _ask(name, revision, ask, missing, "repository")


def cached_file(name: str, commit: str | None, file: str) -> Path | None:
    """A file of a repository where the hub's own cache has it already."""
    found = try_to_load_from_cache(name, file, revision=commit)
    return Path(found) if isinstance(found, str) else None


def stream_range(
    name: str, commit: str | None, file: str, start: int, stop: int, take: Callable[[bytes], None]
) -> bool:
    """Hands bytes `start` to `stop` of a file of the hub to `take`, block by block.

    False, with nothing taken, where the server sends only whole files. An answer that breaks off
    is asked for again from there, a few times.
    """
    position, reason = start, ""
    url = hf_hub_url(name, file, revision=commit)

    def ask() -> bool:
        nonlocal position
        # Compressed on its way, a range would be of something else.
        own = {"Range": f"bytes={position}-{stop - 1}", "Accept-Encoding": "identity"}
        headers = {**build_hf_headers(), **own}
        # It cannot try again once blocks have come; below, what came is kept.
        with http_stream_backoff(
            "GET",
            url,
            max_retries=2,
            retry_on_exceptions=(),
            headers=headers,
            timeout=_TIMEOUT_S,
        ) as answer:
            hf_raise_for_status(answer)
            if answer.status_code != _PARTIAL:
                return False
            for block in answer.iter_bytes():
                take(block[: stop - position])
                position += len(block)
        return True

    def broken(why: str) -> bool:
        nonlocal reason
        reason = why
        return True

    for _ in range(_ATTEMPTS):
        before, reason = position, ""
        if not _ask(name, commit, ask, broken, "repository"):
            return False
        if position >= stop:
            return True
        if position == before:
            break
    raise ModelError(
        f"Bytes {start} to {stop} of {file} of {name} cannot be read: "
        f"{reason or f'it ended {stop - position} bytes early'}. Try again, fetch the file with "
        f"`hf download {name} {file}`, or name the folder of a copy."
    )


def content_sha256(file: Path) -> str:
    """The SHA-256 of a file; one of the hub's cache is named by it, and is not read."""
    name = file.resolve().name if file.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else sha256_file(file)


def _fetch(name: str, revision: str | None, patterns: list[str] | None = None) -> ModelFiles:
    def ask() -> ModelFiles:
        wanted = patterns
        info = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT_S)
        if wanted is None:
            files = [file.rfilename for file in info.siblings or []]
            is_safe = any(fnmatch(file, _SAFE) for file in files)
            wanted = [*TEXT_FILES, _SAFE if is_safe else _UNSAFE]
        # Folders below hold the same weights again, in other formats. By the revision that was
        # asked for: the cache finds a branch again without a network only where it was fetched so.
        folder = snapshot_download(
            name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]
        )
        return ModelFiles(Path(folder), _commit_of(Path(folder)) or info.sha)

    def from_cache(reason: str) -> ModelFiles:
        return _cached(name, revision, reason, "model", patterns)

    return _ask(name, revision, ask, from_cache)


T = TypeVar("T")


def _ask(
    name: str,
    revision: str | None,
    ask: Callable[[], T],
    offline: Callable[[str], T],
    kind: str = "model",
) -> T:
    """What the hub answers; where it does not, `offline` of the reason."""
    try:
        return ask()
    except UserError:
        raise
    except GatedRepoError:
        raise ModelError(
            f"The {kind} {name} is gated: ask for access at https://huggingface.co/{name}, then "
            "log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"The {kind} {name} has no revision {revision!r}.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"There is no {kind} {name}: it is not a folder here, and the hub has none of that "
            "name, or a private one (log in with `hf auth login`)."
        ) from None
    except HfHubHTTPError as error:
        return offline(f"the hub refused: {_first_line(error)}")
    except Exception as error:  # Each transport below the hub client raises its own.
        return offline(f"the hub cannot be reached ({_first_line(error)})")


def _cached(
    name: str, revision: str | None, reason: str, kind: str, patterns: list[str] | None = None
) -> ModelFiles:
    try:
        # Files that are not like `patterns` may be missing.
        folder = snapshot_download(
            name, revision=revision, local_files_only=True, allow_patterns=patterns
        )
    except (OSError, ValueError):
        raise ModelError(
            f"The {kind} {name} cannot be had: it is not a folder here, not in the hub's cache, "
            f"and {reason}. Give the folder of a downloaded {kind}, or connect and try again."
        ) from None
    return ModelFiles(Path(folder), _commit_of(Path(folder)))


def _commit_of(snapshot: Path) -> str | None:
    """The hub's cache names a snapshot by its commit."""
    return snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
