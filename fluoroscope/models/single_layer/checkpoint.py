"""Where a model's tensors lie: a folder's files, or a repository's of which parts can be read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import DamagedError, ModelError
from fluoroscope.core.storage import COMMIT, fingerprints
from fluoroscope.models.hub import (
    SHIPPED,
    cached_file,
    fetch_file,
    find_model,
    find_repository,
    weight_files,
)
from fluoroscope.models.single_layer.reading import (
    HubFile,
    LocalFile,
    PickledShard,
    SafetensorsShard,
)

_INDEX = ".index.json"
_ONE_FILE = ("model.safetensors", "pytorch_model.bin")
"""What weights are called that were not split, the better first."""


@dataclass(frozen=True)
class Checkpoint:
    name: str
    """The hub id, or the name of the folder."""

    revision: str | None
    """The hub commit."""

    folder: Path
    """Of a repository it is in the hub's cache, with some of the files."""

    @classmethod
    def find(cls, source: str, revision: str | None) -> "Checkpoint":
        """Of a folder, a model of the package, or a hub id."""
        folder, commit = find_model(source, revision, ["config.json"])
        is_named = commit is not None or source in SHIPPED
        return cls(source if is_named else folder.resolve().name, commit, folder)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The names of its files, those on the hub among them."""
        here = tuple(sorted(path.name for path in self.folder.iterdir() if path.is_file()))
        if self.revision is None:
            return here
        try:
            return find_repository(self.name, self.revision).files
        except ModelError:
            # Without a network, what was fetched by hand may do.
            if any(one in here or f"{one}{_INDEX}" in here for one in _ONE_FILE):
                return here
            raise

    def fingerprint(self) -> str:
        """What tells its weights from others, without reading them whole."""
        if self.revision is not None:
            return f"{COMMIT}{self.revision}"
        config = self.folder / "config.json"
        return settings_hash(fingerprints([*weight_files(self.folder), config]))

    def index(self) -> Mapping[str, str] | str:
        """Tensor -> the file it is in; or the one file that all are in."""
        for one in _ONE_FILE:
            if one in self.files:
                return one
            if (index := f"{one}{_INDEX}") in self.files:
                return _weight_map(self.path(index))
        raise ModelError(
            f"{self.name} has no weights: no {_ONE_FILE[0]}, no {_ONE_FILE[0]}{_INDEX} and no "
            f"{_ONE_FILE[1]} is in it."
        )

    def path(self, file: str) -> Path:
        """A whole file, fetched where it is not here."""
        if self.revision is None:
            return self.folder / file
        return fetch_file(self.name, self.revision, file)

    def open(self, file: str) -> SafetensorsShard | PickledShard:
        """A file of which only parts will be read; from the hub's cache where it is there."""
        here = self.cached(file)
        if here is None and file not in self.files:
            raise DamagedError(
                f"{self.name} has no file {file}, in which its index says that tensors are. Fetch "
                "or copy it again."
            )
        if not file.endswith(".safetensors"):
            return PickledShard(self.path(file))
        if here is not None:
            return SafetensorsShard(LocalFile(here))
        return SafetensorsShard(HubFile(self.name, self.revision, file))

    def cached(self, file: str) -> Path | None:
        if self.revision is None:
            path = self.folder / file
            return path if path.is_file() else None
        return cached_file(self.name, self.revision, file)


def _weight_map(path: Path) -> Mapping[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is not an index of weights ({type(error).__name__}: {error}). Fetch or copy "
            "it again."
        ) from None
