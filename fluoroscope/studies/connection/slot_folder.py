"""A slot network as a folder that opens again as the same `LanguageModel`.

    config.json          name, settings, and the hash of what stands beside it
    model.safetensors    weights under the names of `SlotNetwork`, with the network's name
    tokenizer/           as any library reads it

Settings without the weights that they were written with, or the reverse, are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import PositiveInt
from torch import Tensor

from fluoroscope.core.config import Config, build, settings_hash
from fluoroscope.core.errors import MismatchError, ModelError
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.data.questions.tokenizer import TextTokenizer, load_tokenizer
from fluoroscope.models.identity import hash_tensors
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.slot_network import SlotNetwork, new_network
from fluoroscope.studies.connection.slot_module import MODEL_TYPE

SETTINGS, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer"


class FolderConfig(Config):
    """What stands in `config.json`."""

    model_type: Literal["slot_network"] = MODEL_TYPE
    name: str
    network: NetworkConfig

    n_steps: PositiveInt | None = None
    """Steps that every text is thought about; null leaves it to halting."""

    weights_sha256: str
    """Of the weights with `network` and `n_steps`."""

    tokenizer_sha256: str


class ReadSlots(NamedTuple):
    name: str
    network: SlotNetwork
    """In float32 on the CPU, in whichever precision it was saved."""

    n_steps: int | None
    tokenizer: TextTokenizer
    weights_sha256: str


def slots_hash(network: SlotNetwork, n_steps: int | None) -> str:
    """Of the weights, and of the settings that they are used with."""
    return _hash(network.config, n_steps, network.state_dict())


def write_slots(
    folder: Path, name: str, network: SlotNetwork, n_steps: int | None, tokenizer: TextTokenizer
) -> None:
    """The settings last: a folder that was not written whole has none of its own."""
    tokenizer.save(folder / TOKENIZER)
    write_tensors(folder / WEIGHTS, network.state_dict(), {"name": name})
    settings = FolderConfig(
        name=name,
        network=network.config,
        n_steps=n_steps,
        weights_sha256=slots_hash(network, n_steps),
        tokenizer_sha256=tokenizer.hash,
    )
    write_json(folder / SETTINGS, settings.model_dump(mode="json"))


def read_slots(folder: Path) -> ReadSlots:
    """Raises `ModelError` for a folder of something else, and `MismatchError` where weights or
    tokenizer are not those that its settings were written with.
    """
    settings = _read_settings(folder / SETTINGS)
    tensors = read_tensors(folder / WEIGHTS)
    found = _hash(settings.network, settings.n_steps, tensors)
    if found != settings.weights_sha256:
        about = read_metadata(folder / WEIGHTS)
        owner = about.get("name") if isinstance(about, dict) else None
        raise MismatchError(
            f"{folder / WEIGHTS} holds the weights of {owner or 'an unnamed network'} ({found[:12]}"
            f" with these settings), and {SETTINGS} beside it is of {settings.name} "
            f"({settings.weights_sha256[:12]}). Take both from one folder."
        )
    tokenizer = load_tokenizer(str(folder / TOKENIZER))
    if tokenizer.hash != settings.tokenizer_sha256:
        raise MismatchError(
            f"{folder / TOKENIZER} cuts text otherwise ({tokenizer.hash[:12]}) than the tokenizer "
            f"of {settings.name} ({settings.tokenizer_sha256[:12]}). Take both from one folder."
        )
    network = new_network(settings.network, 0)
    network.load_state_dict(tensors)
    return ReadSlots(settings.name, network, settings.n_steps, tokenizer, found)


def _read_settings(path: Path) -> FolderConfig:
    settings = read_json(path) if path.is_file() else {}
    found = settings.get("model_type") if isinstance(settings, dict) else None
    if found != MODEL_TYPE:
        raise ModelError(
            f"{path} must be the settings of a {MODEL_TYPE}, as SlotLanguageModel.save writes "
            f"them; it is {f'those of a {found}' if found else 'none'}."
        )
    return build(FolderConfig, settings)


def _hash(config: NetworkConfig, n_steps: int | None, tensors: Mapping[str, Tensor]) -> str:
    settings = {"network": config.model_dump(mode="json"), "n_steps": n_steps}
    return settings_hash({**settings, "tensors": hash_tensors(tensors)})
