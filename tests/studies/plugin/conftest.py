from pathlib import Path

import pytest
import torch
from small_plug_study import write_material
from transformers import BertConfig, BertModel, BertTokenizerFast

from fluoroscope.data.labelled.encoding import Batch
from fluoroscope.models.encoders import encoder_from
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.layer_tensors import LayerIdentity, LayerTensors
from fluoroscope.models.tiny import tiny_model


@pytest.fixture(scope="module")
def small_material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What small runs of a file are made of."""
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def bert():
    """A tiny encoder that hears segments, in float32; each test has its own to train."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = BertModel(config)
    tokenizer = BertTokenizerFast(vocab={name: i for i, name in enumerate(names)})
    encoder = encoder_from(network, tokenizer, "tiny-bert").eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return encoder


@pytest.fixture(scope="session")
def llama_layer() -> LayerTensors:
    """Layer 1 of a tiny Llama, whole; 16 wide."""
    network = tiny_model("llama").network
    tensors = {
        name: tensor.detach().clone()
        for name, tensor in network.model.layers[1].state_dict().items()
    }
    identity = LayerIdentity(
        source="tiny-llama",
        revision=None,
        layer=1,
        n_layers=3,
        dtype="float32",
        form="sequence",
        sha256=hash_tensors(tensors),
    )
    return LayerTensors(tensors, network.config, identity)


@pytest.fixture
def pairs() -> Batch:
    """Three pairs of texts of different lengths, padded on the right."""
    rows = [[2, 5, 6, 7, 3, 8, 9, 3], [2, 10, 3, 11, 3], [2, 12, 13, 3, 14, 15, 3]]
    kinds = [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1]]
    return Batch(
        torch.tensor([row + [0] * (8 - len(row)) for row in rows]),
        torch.tensor([[1] * len(row) + [0] * (8 - len(row)) for row in rows]),
        torch.tensor([row + [0] * (8 - len(row)) for row in kinds]),
        torch.tensor([0, 1, 2]),
    )
