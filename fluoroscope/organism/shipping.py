"""Where the organism lies, and how it is written: a Hugging Face folder like any other."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from fluoroscope.core.errors import ModelError
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.readout import Readout
from fluoroscope.organism.train import OrganismTrainer
from fluoroscope.organism.world import World

DIRECTIONS = "planted_directions.safetensors"
TRAINING = "training.json"


def save_organism(trainer: OrganismTrainer, folder: Path) -> None:
    """Network (bfloat16), tokenizer, planted directions and settings; the same bytes always."""
    folder.mkdir(parents=True, exist_ok=True)
    network = GPT2LMHeadModel(trainer.network.config)
    network.load_state_dict(trainer.network.state_dict())
    network.to(torch.bfloat16).save_pretrained(folder)  # pyright: ignore[reportArgumentType]  # torch's own signature
    trainer.tokenizer.save_pretrained(folder)
    write_tensors(folder / DIRECTIONS, {"directions": trainer.directions})
    write_json(folder / TRAINING, trainer.config.model_dump(mode="json"))


class Parts(NamedTuple):
    """An organism as its check and its scores need it."""

    world: World
    readout: Readout
    directions: Tensor
    """One a row, in the order of `VARIABLES`."""


def load_parts(folder: Path) -> Parts:
    """From a folder that `save_organism` wrote; the network in float32."""
    if not (folder / TRAINING).exists():
        raise ModelError(f"{folder} holds no organism: it has no {TRAINING}.")
    network = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    network.set_attn_implementation("eager")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    directions = read_tensors(folder / DIRECTIONS)["directions"]
    world = World(read_json(folder / TRAINING)["seed"])
    return Parts(world, Readout(network, Encoder(tokenizer)), directions)
