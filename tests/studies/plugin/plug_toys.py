"""A classifier of one tiny block, texts of made-up tokens that it can learn to tell apart, and
trainings of the one on the others.
"""

import numpy as np
import torch
from transformers import BertConfig, BertModel

from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.models.encoders import encoder_from
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.plugs import make_plug
from fluoroscope.studies.plugin.training import PlugTrainer
from fluoroscope.studies.plugin.training_config import OptimiserConfig, TrainingConfig

N_WORDS = 12


def toy_classifier(seed=0, dropout=0.1, n_classes=2, pooling="masked_mean", form=None, layer=None):
    config = BertConfig(
        vocab_size=300,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = BertModel(config)
    encoder = encoder_from(network, tiny_model("bert").tokenizer, "toy")
    plug = form and make_plug(form, 8, layer, 16, seed, 2.0)
    return PlugClassifier(encoder, form, pooling, plug, n_classes, dropout, seed)


def toy_side(n, seed=0, n_classes=2, longest=9):
    """Rows of 3 and more tokens; the class is that of the second."""
    luck = np.random.default_rng(seed)
    lengths = luck.integers(3, longest + 1, n)
    labels = luck.integers(0, n_classes, n)
    rows = [np.concatenate([[1], luck.integers(5, 5 + N_WORDS, size - 1)]) for size in lengths]
    for row, label in zip(rows, labels, strict=True):
        row[1] = 100 + 10 * label + luck.integers(0, 3)
    return Encoded(
        tokens=np.concatenate(rows).astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        segments=None,
        labels=labels.astype(np.int64),
        ids=tuple(str(i) for i in range(n)),
    )


def toy_config(optimiser=None, **changes):
    how = {"learning_rate": 1e-2, "new_learning_rate": 2e-2, "warmup_share": 0.2}
    settings = {"batch_size": 8, "max_length": 12, "precision": "float32", **changes}
    return TrainingConfig(optimiser=OptimiserConfig(**{**how, **(optimiser or {})}), **settings)


def toy_trainer(config=None, epochs=3, seed=1, share=1.0, dropout=0.1, n=28, **classifier):
    """4 steps an epoch, the last of a smaller batch."""
    return PlugTrainer(
        toy_classifier(dropout=dropout, **classifier),
        {"train": toy_side(n), "validation": toy_side(20, 1)},
        config or toy_config(),
        epochs=epochs,
        seed=seed,
        device="cpu",
        share=share,
    )


def sgd(rate=5e-2):
    """Adam makes whole steps of the rounding in gradients that are 0, as those of key biases."""
    return {"name": "sgd", "learning_rate": rate, "new_learning_rate": rate, "warmup_share": 0.0}


def shared_toy(seed, processes, learning_rate, device):
    """A training that is one of `processes`, as their `make`."""
    assert device == "cpu"
    config = toy_config(sgd(learning_rate), processes=processes)
    return toy_trainer(config, seed=seed, dropout=0.0, n=25)
