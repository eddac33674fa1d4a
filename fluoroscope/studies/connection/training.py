"""Trains a reasoner, one step of its optimiser after the other, and keeps its best states.

Where the number of steps of thought is drawn, it depends on the seed and the step; all else is as
in `ValidatedTrainer`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.optim import AdamW

from fluoroscope.core.errors import ConfigError, DoesNotFitError, NumericsError
from fluoroscope.core.seeding import stream, torch_stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import State
from fluoroscope.data.labelled.batches import epoch_batches
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.models.training.validated_trainer import Course, Learned, Row, ValidatedTrainer
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.baselines.decoded import RepeatingReasoner
from fluoroscope.studies.connection.evaluating import answer_all
from fluoroscope.studies.connection.network.reasoner import Reasoner
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.objective import PARTS, cost_of
from fluoroscope.studies.connection.training_config import TrainingConfig


class TrainedReasoner(NamedTuple):
    tensors: dict[str, Tensor]
    """As at the best look; on the CPU."""

    curve: list[Row]
    """A row a look at the validation side."""

    best_step: int
    n_steps: int
    """Steps that were done, fewer than planned where it ended early."""

    n_parts: int
    """Parts that a batch was read in, to fit."""


class ReasonerTrainer(ValidatedTrainer[TrainedReasoner]):
    """`reasoner` is trained in place and moved to `device`; at the end it is in its last state.

    The best look is the one with the best `config.choose_by` on the validation side, the earliest
    of equals. The validation side is answered token by token.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        train: Questions,
        validation: Questions,
        config: TrainingConfig,
        *,
        eos_id: int,
        max_tokens: int,
        eval_batch: int,
        seed: int,
        device: str,
    ) -> None:
        if len(train) == 0 or len(validation) == 0:
            raise ConfigError(
                f"A training needs questions on its training and its validation side, got "
                f"{len(train)} and {len(validation)}."
            )
        self.reasoner, self.config = reasoner.to(device), config
        if isinstance(reasoner, SlotNetwork | RepeatingReasoner):
            reasoner.checkpoints_steps = config.checkpoints_steps
        self._train, self._validation = train, validation
        self._eos_id, self._max_tokens, self._eval_batch = eos_id, max_tokens, eval_batch
        per_epoch, settings = -(-len(train) // self._rows_of_step), config.optimiser
        n_steps = config.max_epochs * per_epoch
        course = Course(
            steps_of_epoch=per_epoch,
            n_steps=n_steps,
            n_planned=n_steps,
            patience=config.patience,
            peak=settings.learning_rate,
            schedule=settings.schedule,
            warmup_share=settings.warmup_share,
            floor=settings.floor,
            clip=settings.clip,
        )
        mates = Acceleration(config.precision, device)
        super().__init__(new_optimiser(reasoner, config), course, mates, seed=seed)
        self._n_parts = config.accumulation

    @property
    def _rows_of_step(self) -> int:
        return self.config.batch_size * self.config.accumulation

    def state(self) -> State:
        return {**super().state(), "n_parts": self._n_parts}

    def load(self, state: State) -> None:
        super().load(state)
        self._n_parts = state["n_parts"]

    def result(self) -> TrainedReasoner:
        """The best look so far; there must have been one."""
        assert self._best_row >= 0, "nobody has looked yet"
        best = self._curve[self._best_row]["step"]
        return TrainedReasoner(self._best, self._curve, best, self._n_steps, self._n_parts)

    def _learned(self, rows: Int[np.ndarray, " n"], iteration: int, sink: Sink) -> Learned:
        """In more parts where memory does not do."""
        told = self._totals(self._fitted(rows, iteration, sink))
        return Learned(told["answer"], told)

    def _fitted(self, rows: Int[np.ndarray, " n"], iteration: int, sink: Sink) -> dict[str, Tensor]:
        while True:
            try:
                self._optimiser.zero_grad(set_to_none=True)
                return self._learn(rows, iteration)
            except torch.OutOfMemoryError as error:
                self._optimiser.zero_grad(set_to_none=True)
                if self._mates.n_processes > 1 or self._n_parts >= len(rows):
                    raise DoesNotFitError(
                        f"A step over {len(rows)} texts in {self._n_parts} parts needs more memory "
                        "than the device has. Give a smaller batch_size, a larger accumulation, "
                        "checkpoints_steps=true or a smaller network."
                    ) from error
                self._n_parts = min(2 * self._n_parts, len(rows))
                sink.message(
                    f"Step {iteration + 1} did not fit; from here on the {self._rows_of_step} "
                    f"texts of a step are read in {self._n_parts} parts. None is left out."
                )

    def _learn(self, rows: Int[np.ndarray, " n"], iteration: int) -> dict[str, Tensor]:
        mates, sums = self._mates, dict[str, Tensor]()
        n_targets = int(self._train.target_lengths[rows].sum())
        mine = np.array_split(rows, mates.n_processes)[mates.rank]
        # Texts of about one length pass together, whatever parts there are.
        mine = mine[np.argsort(self._train.lengths[mine], kind="stable")]
        drawn = self._drawn_steps(iteration)
        deepest = self._train.deepest(rows)
        asks_hops = self.config.thinking.supervised == "hops"
        self.reasoner.train()
        for number, some in enumerate(np.array_split(mine, self._n_parts)):
            if len(some) == 0:
                continue
            asked = self._train.ask(some, self._device, with_hops=asks_hops, deepest=deepest)
            draws = torch_stream(self._seed, "penalties", iteration, number)
            with self._dropout(iteration, number), mates.autocast():
                cost = cost_of(
                    self.reasoner,
                    asked,
                    self.config,
                    n_targets=n_targets,
                    share=len(some) / len(rows),
                    drawn=drawn,
                    draws=draws,
                )
            mates.backward(cost.total)
            for name, value in cost.parts.items():
                sums[name] = sums.get(name, value.new_zeros(())) + value
        self.reasoner.eval()
        return {name: value.double() for name, value in sums.items()}

    def _totals(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Over processes, of which one may have had no texts and know of no parts."""
        zero = torch.zeros((), dtype=torch.float64, device=self._device)
        values = [sums.get(name, zero) for name in PARTS]
        is_there = [zero + (name in sums) for name in PARTS]
        totals = self._mates.total(torch.stack([*values, *is_there])).tolist()
        n = len(PARTS)
        return {name: totals[i] for i, name in enumerate(PARTS) if totals[n + i] > 0}

    def _drawn_steps(self, iteration: int) -> int | None:
        if self.config.thinking.steps != "sampled" or self.reasoner.max_steps == 0:
            return None
        luck = stream(self._seed, "steps of thought", iteration)
        return int(luck.integers(1, self.reasoner.max_steps + 1))

    def _batches(self, epoch: int) -> list[Int[np.ndarray, " n"]]:
        return epoch_batches(
            self._train.lengths,
            self._rows_of_step,
            self._seed,
            epoch,
            drop_last=False,
            bucketed=True,
        )

    def _is_due(self) -> bool:
        every = self.config.eval_every
        is_epoch = self._n_steps % self._course.steps_of_epoch == 0
        return is_epoch or (every is not None and self._n_steps % every == 0)

    def _tensors(self) -> dict[str, Tensor]:
        return self.reasoner.state_dict()

    def _load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.reasoner.load_state_dict(tensors)

    def _look(self, rate: float) -> Row:
        found = answer_all(
            self.reasoner,
            self._validation,
            self.config.thinking,
            batch_size=self._eval_batch,
            max_tokens=self._max_tokens,
            eos_id=self._eos_id,
            device=str(self._device),
            mates=self._mates,
        )
        sums = dict(self._sums)
        n = sums.pop("n_steps")
        row: Row = {
            "step": self._n_steps,
            "epoch": self._n_steps / self._course.steps_of_epoch,
            **{f"train_{name}": value / n for name, value in sorted(sums.items())},
            "learning_rate": rate,
            "validation_accuracy": float(found.is_exact.mean()),
            "validation_loss": float(found.losses.mean()),
            "validation_steps": float(found.n_steps.mean()),
        }
        if not math.isfinite(row["validation_loss"]):
            raise NumericsError(
                f"After step {self._n_steps} answers of the validation side have no loss that is a "
                "number. Give a smaller learning_rate, or precision=float32."
            )
        return row

    def _value(self, row: Row) -> tuple[float, ...]:
        """More is better; of looks that are as often right, the one that is surer."""
        is_by_loss = self.config.choose_by == "loss"
        return 0.0 if is_by_loss else row["validation_accuracy"], -row["validation_loss"]


def new_optimiser(reasoner: Reasoner, config: TrainingConfig) -> AdamW:
    """Matrices decay; biases, norms and what is of one axis do not. Each group has its `peak`."""
    settings, learning = config.optimiser, [p for p in reasoner.parameters() if p.requires_grad]
    if not learning:
        raise ConfigError("Nothing of this reasoner learns; leave it something to train.")
    groups = [
        {"params": some, "weight_decay": decay, "peak": settings.learning_rate}
        for some, decay in (
            ([p for p in learning if p.ndim > 1], settings.weight_decay),
            ([p for p in learning if p.ndim <= 1], 0.0),
        )
        if some
    ]
    return AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
