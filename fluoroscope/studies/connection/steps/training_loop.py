"""One training as a loop, and what is written when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.config import build
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.core.tensors import State, write_tensors
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.questions.scoring import judged
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Shard
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.evaluating import Answered, answer_all
from fluoroscope.studies.connection.made_arms import MadeArm, made_arm
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.network_facts import network_facts
from fluoroscope.studies.connection.reasoners import count_parameters, new_reasoner
from fluoroscope.studies.connection.steps.questions import (
    encoded_side,
    load_questions,
    set_key,
)
from fluoroscope.studies.connection.training import ReasonerTrainer, Row
from fluoroscope.studies.connection.training_config import Steps, TrainingConfig

CURVE, ANSWERS, TRAINED, STATE = (
    "curve.parquet",
    "answers.parquet",
    "trained.safetensors",
    "state.json",
)
FACTS = "facts.safetensors"
_MOST_LABELS = 50
JUDGED: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class Training:
    """One reasoner to be trained."""

    dataset: str
    arm: str
    seed: int
    network: NetworkConfig
    kind: str
    """A name of `arms`: what is made of `network`."""

    is_kept: bool = False
    """Whether its weights stay."""

    steps: Steps | None = None
    """How it thinks, where that is not as the settings say."""

    @property
    def key(self) -> str:
        return training_key(self.dataset, self.arm, self.seed)

    @property
    def shard(self) -> Shard:
        labels = {"dataset": self.dataset, "arm": self.arm, "seed": self.seed}
        made = {
            "network": self.network.model_dump(mode="json"),
            "kind": self.kind,
            "is_kept": self.is_kept,
            "steps": self.steps,
        }
        return Shard(self.key, {**labels, **made})

    @classmethod
    def of(cls, shard: Shard) -> "Training":
        network = build(NetworkConfig, shard.params["network"])
        return cls(**{**shard.params, "network": network})

    @property
    def labels(self) -> dict[str, Any]:  # Any: JSON values.
        """What tells it from others in a table."""
        return {"dataset": self.dataset, "arm": self.arm, "seed": self.seed}


def settings_of(config: ConnectionConfig, training: Training) -> TrainingConfig:
    """How it is trained."""
    settings = config.training.model_copy(update={"precision": config.precision})
    if training.steps is None:
        return settings
    thinking = settings.thinking.model_copy(update={"steps": training.steps})
    return settings.model_copy(update={"thinking": thinking})


def training_key(dataset: str, arm: str, seed: int) -> str:
    """Names its folder."""
    return f"{set_key(dataset)}.{arm}.{seed}"


def made_of(run: Run, config: ConnectionConfig, training: Training) -> MadeArm:
    """The reasoner's settings."""
    asked = load_questions(run, config, training.dataset)
    n_words, batch = asked.tokenizer.vocab_size, config.training.batch_size
    return made_arm(training.kind, training.network, n_words, batch)


class TrainingLoop:
    def __init__(self, run: Run, config: ConnectionConfig, training: Training, device: str) -> None:
        self.run, self.config, self.training, self.device = run, config, training, device
        self.asked = load_questions(run, config, training.dataset)
        self.arm = made_of(run, config, training)
        self.reasoner = new_reasoner(self.arm.config, training.seed)
        self.settings = settings_of(config, training)
        self._check_steps()
        self.trainer = ReasonerTrainer(
            self.reasoner,
            self._side("train"),
            self._side("validation"),
            self.settings,
            eos_id=self.asked.tokenizer.eos_id,
            max_tokens=self.asked.max_target,
            eval_batch=config.eval_batch,
            seed=training.seed,
            device=device,
        )
        self.n_iterations = self.trainer.n_iterations

    def advance(self, iteration: int, sink: Sink) -> None:
        self.trainer.advance(iteration, sink)

    def state(self) -> State:
        return self.trainer.state()

    def load(self, state: State) -> None:
        self.trainer.load(state)

    def finish(self, folder: Path, sink: Sink) -> None:
        done = self.trainer.result()
        self.reasoner.load_state_dict(done.tensors)
        write_parquet(folder / CURVE, curve_table(done.curve))
        frames = [self._frame(side, self._answered(side)) for side in JUDGED]
        write_parquet(folder / ANSWERS, pl.concat(frames))
        if self.training.is_kept:
            write_tensors(folder / TRAINED, done.tensors, self._about())
        state = {
            **self._about(),
            "thinking": self.settings.thinking.model_dump(mode="json"),
            "best_step": done.best_step,
            "n_steps": done.n_steps,
            "parts": done.n_parts,
        }
        write_json(folder / STATE, {**state, "facts": self._facts(folder)})

    def _facts(self, folder: Path) -> dict[str, Any] | None:  # Any: numbers.
        """Of a slot network; the tensors are written."""
        if not isinstance(self.reasoner, SlotNetwork):
            return None
        questions = self.asked.side("test")
        answers = sorted({one.target for one in questions})
        are_few = self.asked.kind == "choice" or len(answers) <= _MOST_LABELS
        labels = np.array([answers.index(one.target) for one in questions]) if are_few else None
        found = network_facts(
            self.reasoner,
            self._side("test"),
            self.settings.thinking,
            batch_size=self.config.eval_batch,
            device=self.device,
            labels=labels,
        )
        write_tensors(folder / FACTS, found.tensors, {})
        return found.values

    def _check_steps(self) -> None:
        """The deepest question may be of the test side: not only once all is trained."""
        is_told = self.settings.thinking.steps == "by_depth" and self.reasoner.max_steps > 0
        if is_told and isinstance(self.reasoner, SlotNetwork):
            deepest = max(one.depth or 0 for one in self.asked.questions)
            self.reasoner.most_steps(self.settings.thinking.steps_per_hop * deepest)

    def _about(self) -> dict[str, Any]:  # Any: JSON values.
        match = self.arm.match
        return {
            **self.training.labels,
            "reasoner": self.arm.config.model_dump(mode="json"),
            "parameters": count_parameters(self.arm.config)._asdict(),
            "matched": None
            if match is None
            else {"unit": match.unit, "target": match.target, "reached": match.reached},
        }

    def _side(self, side: Split) -> Questions:
        return Questions(encoded_side(self.run, self.config, self.training.dataset, side))

    def _answered(self, side: Split) -> Answered:
        return answer_all(
            self.reasoner,
            self._side(side),
            self.settings.thinking,
            batch_size=self.config.eval_batch,
            max_tokens=self.asked.max_target,
            eos_id=self.asked.tokenizer.eos_id,
            device=self.device,
        )

    def _frame(self, side: Split, found: Answered) -> pl.DataFrame:
        """A row a question, in the order of their ids."""
        questions = self.asked.side(side)
        texts = [self.asked.tokenizer.decode(row) for row in found.ids.tolist()]
        scored = judged(questions, texts, self.asked.kind)
        return pl.DataFrame(
            {
                "side": [side] * len(questions),
                "id": [one.id for one in questions],
                "group_id": [one.group_id for one in questions],
                "depth": pl.Series([one.depth for one in questions], dtype=pl.Int64),
                "target": [one.target for one in questions],
                "answer": texts,
                "is_right": [one.is_right for one in scored],
                "is_readable": [one.is_readable for one in scored],
                "loss": found.losses,
                "n_steps": found.n_steps,
                "last_change": _last_changes(found),
            }
        )


def curve_table(curve: Sequence[Row]) -> pl.DataFrame:
    """A row a look. Looks from before a stop come back with their names in another order, which
    must not be seen in the file.
    """
    frame = pl.DataFrame(curve, infer_schema_length=None)
    return frame.select("step", "epoch", *sorted(set(frame.columns) - {"step", "epoch"}))


def _last_changes(found: Answered) -> np.ndarray:
    """Of the last step of each question; NaN where there was none."""
    n = len(found.n_steps)
    if not len(found.changes):
        return np.full(n, np.nan)
    at = np.maximum(found.n_steps - 1, 0)
    return found.changes[at, np.arange(n)]
