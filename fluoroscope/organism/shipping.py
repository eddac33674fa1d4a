"""Where the organism lies, and how it is written: a Hugging Face folder like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from fluoroscope.core.config import build
from fluoroscope.core.errors import MismatchError, ModelError
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import SHIPPED
from fluoroscope.models.identity import ModelIdentity
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.loading import quiet
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.readout import Readout
from fluoroscope.organism.train import OrganismTrainer
from fluoroscope.organism.training_config import OrganismTraining
from fluoroscope.organism.truth import Truth
from fluoroscope.organism.world import World
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.formats.native import load_sae, sidecar_of

DIRECTIONS = "planted_directions.safetensors"
SETTINGS = "training.json"
SAES_FOLDER = "saes"
"""Within it a folder an architecture, and in each one a hook point."""


def save_organism(trainer: OrganismTrainer, folder: Path) -> None:
    """Network (bfloat16), tokenizer, planted directions and settings; the same bytes always."""
    folder.mkdir(parents=True, exist_ok=True)
    network = GPT2LMHeadModel(trainer.network.config)
    network.load_state_dict(trainer.network.state_dict())
    nn.Module.to(network, torch.bfloat16)
    with quiet():
        network.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)
    write_tensors(folder / DIRECTIONS, {"directions": trainer.directions})
    write_json(folder / SETTINGS, trainer.config.model_dump(mode="json"))


@dataclass(frozen=True)
class Organism:
    """A language model whose inside is known, with SAEs of its every layer."""

    model: LanguageModel
    saes: Mapping[tuple[int, str], SparseAutoencoder]
    """(layer, architecture) -> an SAE of that layer's `resid_post`."""

    truth: Truth

    @property
    def world(self) -> World:
        """Every text that it knows, and the truth about each."""
        return self.truth.world


def load(folder: Path | str = "organism") -> Organism:
    """The organism that comes with the package, or one that `fluoro organism train` wrote."""
    folder = _place(folder)
    model, truth = _load_model(folder)
    saes = {
        (HookPoint(place.name).layer, place.parent.name): _load_sae(place, model.identity)
        for place in sorted((folder / SAES_FOLDER).glob("*/*"))
        if place.is_dir()
    }
    return Organism(model, saes, truth)


def _load_sae(place: Path, model: ModelIdentity) -> SparseAutoencoder:
    made_for = sidecar_of(place)["provenance"]["model"]
    # The folder's name may be another; the weights may not.
    if made_for["weights_sha256"] != model.weights_sha256:
        raise MismatchError(
            f"The SAE in {place} was trained on other weights than those in {place.parents[2]}. "
            "Train SAEs of this model, or remove that folder."
        )
    return load_sae(place, expect={"hook_point": place.name})


def load_truth(folder: Path | str = "organism") -> Truth:
    """Without the SAEs."""
    return _load_model(_place(folder))[1]


def _place(folder: Path | str) -> Path:
    # Absolute, so that a folder that is called like something shipped is itself.
    found = SHIPPED.get(folder) if isinstance(folder, str) else None
    return found or Path(folder).expanduser().resolve()


def is_organism(folder: Path) -> bool:
    """Whether a model's folder says what was planted in it."""
    return (folder / DIRECTIONS).exists()


def _load_model(folder: Path) -> tuple[LanguageModel, Truth]:
    for name in (SETTINGS, DIRECTIONS):
        if not (folder / name).exists():
            raise ModelError(f"{folder} holds no organism: it has no {name}.")
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict):
        raise ModelError(f"{folder / SETTINGS} holds no settings of a training.")
    training = build(OrganismTraining, settings)
    model = LanguageModel.load("organism" if folder == SHIPPED["organism"] else str(folder))
    directions = read_tensors(folder / DIRECTIONS).get("directions")
    if not isinstance(model.network, GPT2LMHeadModel) or not isinstance(
        model.tokenizer, PreTrainedTokenizerFast
    ):
        raise ModelError(f"{folder} holds a {type(model.network).__name__}, which is no organism.")
    if directions is None or directions.shape != (len(VARIABLES), model.d_model):
        raise ModelError(
            f"{folder / DIRECTIONS} must hold {len(VARIABLES)} directions of {model.d_model}."
        )
    model.network.set_attn_implementation("eager")
    readout = Readout(model.network, Encoder(model.tokenizer))
    return model, Truth(World(training.seed), readout, directions)
