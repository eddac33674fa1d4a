"""Networks that forms of connections are compared in, and the study's own training of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from benchmarks.connection_parts import BATCH, Size
from fluoroscope.core.config import build
from fluoroscope.data.questions.base import question_set
from fluoroscope.data.questions.encoding import encode_questions
from fluoroscope.data.questions.generated_config import GeneratedConfig
from fluoroscope.data.questions.tokenizer import TextTokenizer, text_tokenizer
from fluoroscope.data.questions.tokenizer_config import TokenizerConfig
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.network.known_configs import known_config
from fluoroscope.studies.connection.network.network_config import (
    ConnectionConfig,
    ConnectionName,
    NetworkConfig,
)
from fluoroscope.studies.connection.network.slot_network import new_network
from fluoroscope.studies.connection.settings import ConnectionSettings
from fluoroscope.studies.connection.training import ReasonerTrainer
from fluoroscope.studies.connection.training_config import TrainingConfig
from fluoroscope.studies.settings import study_spec

TASK, PRESET = "pointer_text", "connection/pointer"
EPOCHS = 1000
"""More than are ever trained: at the end of an epoch a side would be answered."""

_QUICK = {
    "d_model": 16,
    "n_slots": 8,
    "max_steps": 2,
    "vocab_size": 100,
    "output": {"n_heads": 2},
    "connection": {"rank": 2, "k": 2, "n_bases": 2},
}
_QUICK_BATCH = 2


@dataclass(frozen=True)
class Scale:
    """What all forms are put into."""

    name: str
    network: NetworkConfig
    training: TrainingConfig
    made: GeneratedConfig
    """What the walks are like that are trained on."""

    n_steps: int
    """Steps of training in a round."""

    knows_words: bool
    """Whether the vocabulary is that of the walks; else it is the network's own."""

    @property
    def size(self) -> Size:
        network = self.network
        return Size(
            network.n_slots, network.d_model, network.connection.rank, self.training.batch_size
        )

    def form(self, name: ConnectionName) -> ConnectionConfig:
        """Of the network's own settings; where there are too few slots for the k of `top_k`, it is
        a quarter of them.
        """
        connection, n_slots = self.network.connection, self.network.n_slots
        k = connection.k if connection.k < n_slots else n_slots // 4
        return connection.model_copy(update={"name": name, "k": k})

    def with_form(self, name: ConnectionName) -> NetworkConfig:
        return self.network.model_copy(update={"connection": self.form(name)})


def base_scale(is_quick: bool) -> Scale:
    """The base network of the plan, all of whose steps are done in training."""
    network = build(NetworkConfig, _QUICK) if is_quick else known_config("base_config").network
    training = TrainingConfig(batch_size=_QUICK_BATCH if is_quick else BATCH, accumulation=1)
    made = pointer_settings().data.made
    return Scale("base", network, _endless(training), made, n_steps=1, knows_words=False)


def walks_scale(settings: ConnectionSettings, is_quick: bool) -> Scale:
    """The network of a run on walks, as it is trained there."""
    training = settings.training
    if is_quick:
        training = training.model_copy(update={"batch_size": _QUICK_BATCH})
    n_steps = 1 if is_quick else 5
    return Scale(
        "walks", settings.network, _endless(training), settings.data.made, n_steps, knows_words=True
    )


def pointer_settings() -> ConnectionSettings:
    """Of the preset."""
    found = study_spec("connection", PRESET, None, [])
    assert isinstance(found, ConnectionSettings), "a spec of this study has its settings"
    return found


@dataclass(frozen=True)
class Training:
    """Steps of the study's trainer on walks, for any form."""

    scale: Scale
    n_passes: int
    """Times that `steps_of` will be called of each form."""

    def steps_of(self, form: ConnectionName) -> Callable[[], None]:
        """The next steps, each time it is called."""
        scale, done = self.scale, 0
        trainer = self._trainer(scale.with_form(form))

        def run() -> None:
            nonlocal done
            for iteration in range(done, done + scale.n_steps):
                trainer.advance(iteration)
            done += scale.n_steps

        return run

    def _trainer(self, network: NetworkConfig) -> ReasonerTrainer:
        scale, walks = self.scale, self._walks
        if scale.knows_words:
            network = network.model_copy(update={"vocab_size": walks.tokenizer.vocab_size})
        return ReasonerTrainer(
            new_network(network, seed=0),
            walks.train,
            walks.validation,
            scale.training,
            eos_id=walks.tokenizer.eos_id,
            max_tokens=network.max_target,
            eval_batch=scale.training.batch_size,
            seed=0,
            device="cpu",
        )

    @cached_property
    def _walks(self) -> "_Walks":
        made, network, n = self.scale.made, self.scale.network, self._n_questions()
        few = made.pointer.test_depth
        sizes = {"n_train": n, "n_validation": few, "n_test": few}
        items = question_set(TASK, made.model_copy(update=sizes)).read(seed=0).items
        sides = [[one for one in items if one.split == side] for side in ("train", "validation")]
        tokenizer = text_tokenizer(TokenizerConfig(), sides[0], is_made=True)
        train, validation = (
            Questions(encode_questions(some, tokenizer, network.max_source, network.max_target))
            for some in sides
        )
        return _Walks(tokenizer, train, validation)

    def _n_questions(self) -> int:
        """For all steps within an epoch; every depth has as many, so some may be left out."""
        rows = self.scale.training.batch_size * self.scale.training.accumulation
        return rows * (self.scale.n_steps * self.n_passes + 1) + self.scale.made.pointer.train_depth


class _Walks(NamedTuple):
    tokenizer: TextTokenizer
    train: Questions
    validation: Questions


def _endless(training: TrainingConfig) -> TrainingConfig:
    """Without looks at the validation side."""
    return training.model_copy(
        update={
            "max_epochs": EPOCHS,
            "eval_every": None,
            "patience": None,
            "precision": "float32",
        }
    )
