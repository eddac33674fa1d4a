"""Walks of one or two hops on a fixed graph of five nodes, and tiny reasoners that learn them."""

import numpy as np

from fluoroscope.data.questions.encoding import encode_questions
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.tokenizer import text_tokenizer
from fluoroscope.data.questions.tokenizer_config import TokenizerConfig
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.network.network_config import (
    ConnectionConfig,
    HaltingConfig,
    NetworkConfig,
    OutputConfig,
)
from fluoroscope.studies.connection.network.slot_network import new_network
from fluoroscope.studies.connection.training import ReasonerTrainer
from fluoroscope.studies.connection.training_config import (
    OptimiserConfig,
    ThinkingConfig,
    TrainingConfig,
)

N_NODES = 5


def walks(n, seed=0, split="train", says_hops=True):
    """Texts of two and more words, so that rows differ in length."""
    luck = np.random.default_rng(seed)
    found = []
    for i in range(n):
        start, depth = int(luck.integers(N_NODES)), int(luck.integers(1, 3))
        hops = tuple(f"n{(start + 2 * hop) % N_NODES}" for hop in range(1, depth + 1))
        source = f"n{start} " + "go " * depth
        known = {"depth": depth, "hops": hops} if says_hops else {}
        one = Question(f"{split}-{i}", f"{split}-{i}", split, source, hops[-1], **known)
        found.append(one)
    return found


TOKENIZER = text_tokenizer(TokenizerConfig(), walks(40), is_made=True)


def questions(n, seed=0, **changes):
    return Questions(encode_questions(walks(n, seed, **changes), TOKENIZER, 16, 8))


def toy_network(seed=0, **changes):
    settings = {
        "vocab_size": TOKENIZER.vocab_size,
        "d_model": 16,
        "n_slots": 6,
        "max_steps": 4,
        "step": "gated",
        "connection": ConnectionConfig(name="scalar", rank=1),
        "halting": HaltingConfig(name="fixed"),
        "output": OutputConfig(name="decoder", n_layers=1, n_heads=2),
        "max_source": 16,
        "max_target": 8,
        "dropout": 0.1,
        **changes,
    }
    return new_network(NetworkConfig(**settings), seed)


def toy_settings(thinking=None, rate=1e-2, **changes):
    known = {
        "optimiser": OptimiserConfig(learning_rate=rate),
        "thinking": ThinkingConfig(**(thinking or {"steps": "all"})),
        "batch_size": 8,
        "accumulation": 1,
        "max_epochs": 2,
        "eval_every": None,
        "patience": None,
        "label_smoothing": 0.0,
        "precision": "float32",
        **changes,
    }
    return TrainingConfig(**known)


def toy_reasoner_trainer(settings=None, network=None, n=20, **changes):
    return ReasonerTrainer(
        toy_network() if network is None else network,
        questions(n, **changes),
        questions(10, seed=1, split="validation", **changes),
        settings or toy_settings(),
        eos_id=TOKENIZER.eos_id,
        max_tokens=3,
        eval_batch=4,
        seed=3,
        device="cpu",
    )
