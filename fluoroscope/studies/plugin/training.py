"""Trains a classifier, one optimiser step after the other, and keeps its best epoch.

It can be put down after any step and taken up bit for bit: the batches of an epoch depend on the
seed and the epoch, the dropout of a step on the seed and the step, and the rest is in `state`.
As one of several processes it reads its slice of the same batches; gradients are those of the
whole batch, so every process has the same weights.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.batches import epoch_batches
from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.models.training.rates import rate_share, set_rates
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

Row = dict[str, Any]  # Any: a number of an epoch, or whether training ended with it.


class TrainedPlug(NamedTuple):
    tensors: dict[str, Tensor]
    """What was trained, as in the best epoch; on the CPU."""

    curve: list[Row]
    """A row each time the validation side was read, which is at the end of every epoch."""

    best_epoch: int
    """From 1; where training ended within an epoch, that epoch's number."""

    n_steps: int
    """Steps that were done, fewer than planned where it ended early."""


class PlugTrainer:
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
        self._seed, self._device = seed, torch.device(device)
        self._mates = Acceleration(config.precision, device)
        if config.processes != self._mates.n_processes:
            raise ConfigError(
                f"This training is shared by {self._mates.n_processes} processes, but processes="
                f"{config.processes} were asked for. Several are started by a SharedTrainer."
            )
        self._steps_of_epoch = steps_of_epoch(len(self._train), config)
        self._n_planned = epochs * self._steps_of_epoch
        self.n_iterations = steps_of_training(len(self._train), config, epochs, share)
        self._optimiser = new_optimiser(classifier.parameter_groups(), config.optimiser)
        groups = self._optimiser.param_groups
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self._lengths = self._train.lengths
        self._order: tuple[int, list[np.ndarray]] | None = None
        self._n_steps = 0
        self._sums = {"loss": 0.0, "right": 0.0, "n": 0.0}
        self._curve: list[Row] = []
        self._best: dict[str, Tensor] = {}
        self._best_row = -1

    @property
    def is_done(self) -> bool:
        """Whether further iterations do nothing, be it as there was no improvement."""
        is_stopped = bool(self._curve) and self._curve[-1]["is_stopped_early"]
        return is_stopped or self._n_steps >= self.n_iterations

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        """Does step number `iteration`, and what follows it at the end of an epoch."""
        if self.is_done:
            return
        assert iteration == self._n_steps, f"step {self._n_steps} is next, not {iteration}"
        rate = self._step(iteration)
        self._n_steps += 1
        is_epoch = self._n_steps % self._steps_of_epoch == 0
        if is_epoch or self._n_steps == self.n_iterations:
            self._finish_epoch(rate, sink)

    def train(self, sink: Sink = SILENT) -> TrainedPlug:
        """All that is left, for use without a run."""
        for iteration in range(self._n_steps, self.n_iterations):
            self.advance(iteration, sink)
            sink.progress(iteration + 1, self.n_iterations, "steps")
        return self.result()

    def state(self) -> State:
        return {
            "n_steps": self._n_steps,
            "tensors": self.classifier.trained_tensors(),
            "optimiser": self._optimiser.state_dict()["state"],
            "scaler": self._mates.state(),
            "sums": dict(self._sums),
            "curve": [dict(row) for row in self._curve],
            "best": self._best,
            "best_row": self._best_row,
        }

    def load(self, state: State) -> None:
        self._n_steps = state["n_steps"]
        self.classifier.load_trained(state["tensors"])
        whole = self._optimiser.state_dict()
        self._optimiser.load_state_dict({**whole, "state": state["optimiser"]})
        self._mates.load(state["scaler"])
        self._sums, self._curve = dict(state["sums"]), [dict(row) for row in state["curve"]]
        self._best, self._best_row = state["best"], state["best_row"]

    def result(self) -> TrainedPlug:
        """The best epoch so far; there must have been one."""
        assert self._best_row >= 0, "no epoch has ended yet"
        best = self._curve[self._best_row]
        return TrainedPlug(self._best, self._curve, best["epoch"], self._n_steps)

    def _step(self, iteration: int) -> float:
        """Learns from one batch; the rate of the encoder it did so with."""
        rows = self._rows(iteration)
        mine = np.array_split(rows, self._mates.n_processes)[self._mates.rank]
        config = self.config.optimiser
        part = rate_share(iteration, self._n_planned, config.schedule, config.warmup_share)
        set_rates(self._optimiser, part)
        self._optimiser.zero_grad(set_to_none=True)
        sums = self._learn(rows, mine, iteration)
        self._mates.total_gradients(self._parameters)
        norm = self._mates.clip(self._optimiser, self._parameters, config.clip)
        loss, right = self._mates.total(sums).tolist()
        if not (math.isfinite(loss) and (math.isfinite(norm) or self._mates.may_be_infinite)):
            raise NumericsError(
                f"In step {iteration + 1} of {self._n_planned} the loss is {loss / len(rows):g} "
                f"and the norm of its gradient {norm:g}. Give a smaller learning_rate than "
                f"{config.learning_rate:.2g}, a longer warm-up, or precision=float32."
            )
        self._mates.step(self._optimiser)
        for name, value in (("loss", loss), ("right", right), ("n", len(rows))):
            self._sums[name] += value
        return config.learning_rate * part

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

    @contextmanager
    def _dropout(self, iteration: int) -> Iterator[None]:
        """What is dropped depends on the seed, the step and the process alone."""
        seed = derive_seed(self._seed, "dropout", iteration, self._mates.rank)
        on_gpu = self._device.type == "cuda"
        with torch.random.fork_rng([self._device] if on_gpu else []):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                # Not `torch.manual_seed`, which would move the streams of other devices.
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(seed)
            yield

    def _rows(self, iteration: int) -> Int[np.ndarray, " n"]:
        epoch, place = divmod(iteration, self._steps_of_epoch)
        if self._order is None or self._order[0] != epoch:
            batches = epoch_batches(
                self._lengths,
                self.config.batch_size,
                self._seed,
                epoch,
                drop_last=self.config.drop_last,
                bucketed=self.config.padding == "buckets",
            )
            self._order = epoch, batches
        return self._order[1][place]

    def _finish_epoch(self, rate: float, sink: Sink) -> None:
        scores = self._validate()
        n = self._sums["n"]
        row: Row = {
            "epoch": -(-self._n_steps // self._steps_of_epoch),
            "step": self._n_steps,
            "train_loss": self._sums["loss"] / n,
            "train_accuracy": self._sums["right"] / n,
            **{f"validation_{name}": value for name, value in scores.items()},
            "learning_rate": rate,
        }
        sink.metrics(self._n_steps, {name: row[name] for name in row if name != "step"})
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._curve.append(row)
        if self._best_row < 0 or self._value(row) > self._value(self._curve[self._best_row]):
            self._best_row = len(self._curve) - 1
            tensors = self.classifier.trained_tensors()
            self._best = {name: tensor.cpu() for name, tensor in tensors.items()}
        patience, n_worse = self.config.patience, len(self._curve) - 1 - self._best_row
        is_out = patience is not None and n_worse >= max(patience, 1)
        row["is_stopped_early"] = is_out and self._n_steps < self.n_iterations
        if row["is_stopped_early"]:
            sink.message(
                f"Training ends after epoch {row['epoch']}: its validation side was best after "
                f"epoch {self._curve[self._best_row]['epoch']}."
            )

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

    def _value(self, row: Row) -> float:
        """More is better."""
        value = row[f"validation_{self.config.choose_by}"]
        return -value if self.config.choose_by == "loss" else value
