"""Where the organism lies, and how it is written: a Hugging Face folder like any other."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from fluoroscope.core.config import build
from fluoroscope.core.errors import ModelError
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.readout import Readout
from fluoroscope.organism.train import OrganismTrainer
from fluoroscope.organism.training_config import OrganismTraining
from fluoroscope.organism.world import World

DIRECTIONS = "planted_directions.safetensors"
SETTINGS = "training.json"


def save_organism(trainer: OrganismTrainer, folder: Path) -> None:
    """Network (bfloat16), tokenizer, planted directions and settings; the same bytes always."""
    folder.mkdir(parents=True, exist_ok=True)
    network = GPT2LMHeadModel(trainer.network.config)
    network.load_state_dict(trainer.network.state_dict())
    nn.Module.to(network, torch.bfloat16)
    network.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)
    write_tensors(folder / DIRECTIONS, {"directions": trainer.directions})
    write_json(folder / SETTINGS, trainer.config.model_dump(mode="json"))


class Parts(NamedTuple):
    """An organism as its check and its scores need it."""

    world: World
    readout: Readout
    directions: Tensor
    """One a row, in the order of `VARIABLES`."""


def load_parts(folder: Path) -> Parts:
    """From a folder that `save_organism` wrote; the network in float32."""
    for name in (SETTINGS, DIRECTIONS):
        if not (folder / name).exists():
            raise ModelError(f"{folder} holds no organism: it has no {name}.")
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict):
        raise ModelError(f"{folder / SETTINGS} holds no settings of a training.")
    training = build(OrganismTraining, settings)
    model = LanguageModel.load(str(folder))
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
    return Parts(World(training.seed), readout, directions)
