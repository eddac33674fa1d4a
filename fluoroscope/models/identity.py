"""Which model something was made with: hashes of what decides its numbers.

An artefact carries the identity of its model, and is refused for any other. The hashes are of
the files where there are files, of the tensors and the vocabulary where a model was built in
memory; they cost one read of the weights, and are taken only when asked for.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.config import settings_hash
from fluoroscope.core.storage import sha256_file


@dataclass(frozen=True)
class ModelIdentity:
    """What tells one model from another; equal for a folder wherever it lies."""

    id: str
    """The hub id, or the name (not the path) of the folder."""

    revision: str | None
    """The hub commit, where the model came from the hub."""

    weights_sha256: str
    tokenizer_sha256: str

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """What an identity will be made from, when it is asked for."""

    id: str
    revision: str | None
    weights_sha256: Callable[[], str]
    tokenizer_sha256: Callable[[], str]

    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.id, self.revision, self.weights_sha256(), self.tokenizer_sha256())


def hash_files(files: list[Path]) -> str:
    """One hash of the names and contents of `files`."""
    return settings_hash({file.name: _hash_file(file) for file in sorted(files)})


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """One hash of the names, dtypes, shapes and bytes of `tensors`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of how a tokenizer built in memory cuts text."""
    rules = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.all_special_ids}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Padding and truncation are the state of the last call, not part of the tokenizer.
        rules |= json.loads(backend.to_str()) | {"padding": None, "truncation": None}
    return settings_hash(rules)


def _hash_file(file: Path) -> str:
    # The hub's cache names a large file by its SHA-256, which saves reading many gigabytes.
    name = file.resolve().name if file.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else sha256_file(file)
