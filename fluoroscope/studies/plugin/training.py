"""Trains a classifier, one optimiser step after the other, and keeps its best epoch."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.sink import Sink
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.batches import epoch_batches
from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.models.training.validated_trainer import Course, Learned, Row, ValidatedTrainer
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.metrics import scores_of
from fluoroscope.studies.plugin.optimising import new_optimiser
from fluoroscope.studies.plugin.predicting import predict
from fluoroscope.studies.plugin.schedule import (
    padded_length,
    steps_of_epoch,
    steps_of_training,
)
from fluoroscope.studies.plugin.training_config import TrainingConfig

EVALUATED = 4
"""Batches of a step that are read at once where nothing is learnt, which takes less memory."""


class TrainedPlug(NamedTuple):
    tensors: dict[str, Tensor]
    """What was trained, as in the best epoch; on the CPU."""

    curve: list[Row]
    """A row each time the validation side was read, which is at the end of every epoch."""

    best_epoch: int
    """From 1; where training ended within an epoch, that epoch's number."""

    n_steps: int
    """Steps that were done, fewer than planned where it ended early."""


class PlugTrainer(ValidatedTrainer[TrainedPlug]):
    """`sides` are the training and the validation side; others are not looked at.

    The best epoch is that with the best `config.choose_by` on the validation side, the earliest of
    equals. With `share` below 1 training ends after that share of the steps of all `epochs`, whose
    rates it follows, and the validation side is read there as well. `classifier` is trained in
    place and moved to `device`; after the last step it is in its last state, not in its best.
    """

    def __init__(
        self,
        classifier: PlugClassifier,
        sides: Mapping[Split, Encoded],
        config: TrainingConfig,
        *,
        epochs: int,
        seed: int,
        device: str,
        share: float = 1.0,
    ) -> None:
        if missing := {"train", "validation"} - sides.keys():
            raise ConfigError(
                f"A training needs the sides train and validation, got {sorted(sides)}: give it "
                f"{' and '.join(sorted(missing))}."
            )
        self.classifier, self.config = classifier.to(device), config
        self._train, self._validation = sides["train"], sides["validation"]
        self._lengths = self._train.lengths
        mates = Acceleration(config.precision, device)
        if config.processes != mates.n_processes:
            raise ConfigError(
                f"This training is shared by {mates.n_processes} processes, but processes="
                f"{config.processes} were asked for. Several are started by a SharedTrainer."
            )
        per_epoch, settings = steps_of_epoch(len(self._train), config), config.optimiser
        course = Course(
            steps_of_epoch=per_epoch,
            n_steps=steps_of_training(len(self._train), config, epochs, share),
            n_planned=epochs * per_epoch,
            patience=config.patience,
            peak=settings.learning_rate,
            schedule=settings.schedule,
            warmup_share=settings.warmup_share,
            floor=0.0,
            clip=settings.clip,
        )
        optimiser = new_optimiser(classifier.parameter_groups(), settings)
        super().__init__(optimiser, course, mates, seed=seed)

    def result(self) -> TrainedPlug:
        """The best epoch so far; there must have been one."""
        assert self._best_row >= 0, "no epoch has ended yet"
        best = self._curve[self._best_row]
        return TrainedPlug(self._best, self._curve, best["epoch"], self._n_steps)

    def _learned(self, rows: Int[np.ndarray, " n"], iteration: int, sink: Sink) -> Learned:
        mine = np.array_split(rows, self._mates.n_processes)[self._mates.rank]
        self._optimiser.zero_grad(set_to_none=True)
        loss, right = self._mates.total(self._learn(rows, mine, iteration)).tolist()
        told = {"loss": loss, "right": right, "n": float(len(rows))}
        return Learned(loss / len(rows), told)

    def _learn(
        self, rows: Int[np.ndarray, " n"], mine: Int[np.ndarray, " m"], iteration: int
    ) -> Tensor:
        """Leaves the gradients of the rows' mean loss; the summed loss and the right ones."""
        if len(mine) == 0:
            return torch.zeros(2, dtype=torch.float64, device=self._device)
        # All slices of a batch are as long: pooling may count padding.
        longest = int(self._lengths[rows].max())
        pad_to = padded_length(self.config) or longest
        pad_id = self.classifier.encoder.pad_id
        batch = self._train.batch(mine, pad_id=pad_id, pad_to=pad_to).to(self._device)
        self.classifier.train()
        with self._dropout(iteration), self._mates.autocast():
            logits = self.classifier(batch)
        losses = nn.functional.cross_entropy(
            logits.float(),
            batch.labels,
            label_smoothing=self.config.label_smoothing,
            reduction="none",
        )
        self._mates.backward(losses.sum() / len(rows))
        self.classifier.eval()
        is_right = logits.detach().argmax(dim=1) == batch.labels
        return torch.stack([losses.detach().double().sum(), is_right.double().sum()])

    def _batches(self, epoch: int) -> list[Int[np.ndarray, " n"]]:
        return epoch_batches(
            self._lengths,
            self.config.batch_size,
            self._seed,
            epoch,
            drop_last=self.config.drop_last,
            bucketed=self.config.padding == "buckets",
        )

    def _is_due(self) -> bool:
        is_epoch = self._n_steps % self._course.steps_of_epoch == 0
        return is_epoch or self._n_steps == self.n_iterations

    def _look(self, rate: float) -> Row:
        scores = self._validate()
        n = self._sums["n"]
        return {
            "epoch": -(-self._n_steps // self._course.steps_of_epoch),
            "step": self._n_steps,
            "train_loss": self._sums["loss"] / n,
            "train_accuracy": self._sums["right"] / n,
            **{f"validation_{name}": value for name, value in scores.items()},
            "learning_rate": rate,
        }

    def _tensors(self) -> dict[str, Tensor]:
        return self.classifier.trained_tensors()

    def _load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.classifier.load_trained(tensors)

    def _validate(self) -> dict[str, float]:
        logits = predict(
            self.classifier,
            self._validation,
            batch_size=EVALUATED * self.config.batch_size,
            device=str(self._device),
            precision=self.config.precision,
            pad_to=padded_length(self.config),
            together=self._mates,
        )
        try:
            return scores_of(logits, torch.from_numpy(self._validation.labels))
        except NumericsError as error:
            raise NumericsError(
                f"On the validation side after step {self._n_steps}: {error}"
            ) from error

    def _value(self, row: Row) -> tuple[float, ...]:
        value = row[f"validation_{self.config.choose_by}"]
        return (-value if self.config.choose_by == "loss" else value,)
