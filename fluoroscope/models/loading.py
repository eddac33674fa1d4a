"""Reads a network and its tokenizer from a folder, and checks that both are whole.

A head that the checkpoint has no weights for is never invented: such a network is kept
without it. Any other missing weight is an error.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from fluoroscope.core.errors import ModelError
from fluoroscope.models.families import Family, find_family
from fluoroscope.models.hub import (
    SHIPPED,
    TEXT_FILES,
    find_config,
    find_model,
    tokenizer_files,
    weight_files,
)
from fluoroscope.models.identity import Source, hash_files

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_parts(
    name_or_folder: str, dtype: str, device: str, revision: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Source]:
    """The network (frozen, without dropout), its tokenizer, and where both came from."""
    target, precision = check_device(device), find_dtype(dtype)
    folder, commit = find_model(name_or_folder, revision)
    family = find_family(_model_type(folder), name_or_folder)
    weights, words = weight_files(folder), tokenizer_files(folder)
    # The same weights under another configuration (rotary base, norm epsilon) are another model.
    config = find_config(str(folder))
    tokenizer = _read_tokenizer(folder)
    network = _load_network(folder, family, precision)
    is_named = commit is not None or name_or_folder in SHIPPED
    name = name_or_folder if is_named else folder.resolve().name
    source = Source(name, commit, lambda: hash_files([*weights, config]), lambda: hash_files(words))
    nn.Module.to(network, target)
    return network.eval().requires_grad_(False), tokenizer, source


def _model_type(folder: Path) -> str:
    path = find_config(str(folder))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return str(config["model_type"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path} is not a model's configuration: it has no model_type.") from None


def load_tokenizer(name_or_folder: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer alone, where no weights are needed."""
    return _read_tokenizer(find_model(name_or_folder, revision, TEXT_FILES).folder)


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The libraries below have no common error.
        raise ModelError(f"The tokenizer in {folder} cannot be read: {error}") from error


def _load_network(folder: Path, family: Family, dtype: torch.dtype) -> PreTrainedModel:
    auto = AutoModelForCausalLM if family.kind == "decoder" else AutoModelForMaskedLM
    try:
        with quiet():
            network, loaded = auto.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]  # a pair, as loading info is asked for
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # The libraries below have no common error.
        raise ModelError(f"The weights in {folder} cannot be read: {error}") from error
    missing = sorted(loaded["missing_keys"])
    body = [name for name in missing if name.startswith(f"{family.prefix}.")]
    if body:
        raise ModelError(
            f"The weights in {folder} are not whole: {len(body)} tensors of its config.json are "
            f"missing, the first is {body[0]}."
        )
    return getattr(network, family.prefix) if missing else network


def find_dtype(name: str) -> torch.dtype:
    """By its name, or a `ModelError` that says which there are."""
    if name not in DTYPES:
        raise ModelError(f"A dtype is one of {', '.join(DTYPES)}, got {name!r}.")
    return DTYPES[name]


def check_device(device: str) -> torch.device:
    """The device, or a `ModelError` where there is none such."""
    try:
        target = torch.device(device)
    except RuntimeError:
        raise ModelError(f"A device is cpu, cuda or cuda:N, got {device!r}.") from None
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"There is no device {device}: {torch.cuda.device_count()} CUDA devices are here. "
            "Use device=cpu."
        )
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's warnings and progress bars."""
    # Weights without a place (a pooler, a discriminator's head) are no news to a reader.
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()
