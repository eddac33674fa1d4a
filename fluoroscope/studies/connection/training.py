"""Trains a reasoner, one step of its optimiser after the other, and keeps its best states.

It can be put down after any step and taken up bit for bit: the batches of an epoch depend on the
seed and the epoch; dropout, and the number of steps of thought where it is drawn, on the seed and
the step; the rest is in `state`. As one of several processes it reads its slice of the same
batches; gradients are those of the whole batch.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import AdamW

from fluoroscope.core.errors import ConfigError, DoesNotFitError, NumericsError
from fluoroscope.core.seeding import derive_seed, stream, torch_stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.data.labelled.batches import epoch_batches
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.models.training.rates import rate_share, set_rates
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.baselines.decoded import RepeatingReasoner
from fluoroscope.studies.connection.evaluating import answer_all
from fluoroscope.studies.connection.network.reasoner import Reasoner
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.objective import PARTS, cost_of
from fluoroscope.studies.connection.training_config import TrainingConfig

Row = dict[str, Any]  # Any: a number of a look, or whether training ended with it.


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


class ReasonerTrainer:
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
        self._seed, self._device = seed, torch.device(device)
        self._mates = Acceleration(config.precision, device)
        self._steps_of_epoch = -(-len(train) // self._rows_of_step)
        self.n_iterations = config.max_epochs * self._steps_of_epoch
        self._optimiser = new_optimiser(reasoner, config)
        groups = self._optimiser.param_groups
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self._order: tuple[int, list[np.ndarray]] | None = None
        self._n_parts, self._n_steps = config.accumulation, 0
        self._sums: dict[str, float] = {}
        self._curve: list[Row] = []
        self._best: dict[str, Tensor] = {}
        self._best_row = -1

    @property
    def _rows_of_step(self) -> int:
        return self.config.batch_size * self.config.accumulation

    @property
    def is_done(self) -> bool:
        """Whether further iterations do nothing, be it as there was no improvement."""
        is_stopped = bool(self._curve) and self._curve[-1]["is_stopped_early"]
        return is_stopped or self._n_steps >= self.n_iterations

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        """Does step number `iteration`, and looks at the validation side where it is due."""
        if self.is_done:
            return
        assert iteration == self._n_steps, f"step {self._n_steps} is next, not {iteration}"
        rate = self._step(iteration, sink)
        self._n_steps += 1
        is_epoch = self._n_steps % self._steps_of_epoch == 0
        every = self.config.eval_every
        if is_epoch or (every is not None and self._n_steps % every == 0):
            self._look(rate, sink)

    def train(self, sink: Sink = SILENT) -> TrainedReasoner:
        """All that is left, for use without a run."""
        for iteration in range(self._n_steps, self.n_iterations):
            self.advance(iteration, sink)
            sink.progress(iteration + 1, self.n_iterations, "steps")
        return self.result()

    def state(self) -> State:
        return {
            "n_steps": self._n_steps,
            "n_parts": self._n_parts,
            "tensors": self.reasoner.state_dict(),
            "optimiser": self._optimiser.state_dict()["state"],
            "scaler": self._mates.state(),
            "sums": dict(self._sums),
            "curve": [dict(row) for row in self._curve],
            "best": self._best,
            "best_row": self._best_row,
        }

    def load(self, state: State) -> None:
        self._n_steps, self._n_parts = state["n_steps"], state["n_parts"]
        self.reasoner.load_state_dict(state["tensors"])
        whole = self._optimiser.state_dict()
        self._optimiser.load_state_dict({**whole, "state": state["optimiser"]})
        self._mates.load(state["scaler"])
        self._sums, self._curve = dict(state["sums"]), [dict(row) for row in state["curve"]]
        self._best, self._best_row = state["best"], state["best_row"]

    def result(self) -> TrainedReasoner:
        """The best look so far; there must have been one."""
        assert self._best_row >= 0, "nobody has looked yet"
        best = self._curve[self._best_row]["step"]
        return TrainedReasoner(self._best, self._curve, best, self._n_steps, self._n_parts)

    def _step(self, iteration: int, sink: Sink) -> float:
        """Learns from the batches of one step; the rate it did so with."""
        rows, config = self._rows(iteration), self.config.optimiser
        part = rate_share(
            iteration, self.n_iterations, config.schedule, config.warmup_share, config.floor
        )
        set_rates(self._optimiser, part)
        sums = self._learned(rows, iteration, sink)
        self._mates.total_gradients(self._parameters)
        norm = self._mates.clip(self._optimiser, self._parameters, config.clip)
        found = self._totals(sums)
        is_norm = math.isfinite(norm) or self._mates.may_be_infinite
        if not (math.isfinite(found["answer"]) and is_norm):
            raise NumericsError(
                f"In step {iteration + 1} of {self.n_iterations} the loss is {found['answer']:g} "
                f"and the norm of its gradient {norm:g}. Give a smaller learning_rate than "
                f"{config.learning_rate:.2g}, a longer warm-up, or precision=float32."
            )
        self._mates.step(self._optimiser)
        for name, value in {**found, "grad_norm": norm, "n": 1.0}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return config.learning_rate * part

    def _learned(
        self, rows: Int[np.ndarray, " n"], iteration: int, sink: Sink
    ) -> dict[str, Tensor]:
        """Leaves the gradients of all rows together; in more parts where memory does not do."""
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

    @contextmanager
    def _dropout(self, iteration: int, part: int) -> Iterator[None]:
        """What is dropped depends on the seed, the step, the part and the process alone."""
        seed = derive_seed(self._seed, "dropout", iteration, part, self._mates.rank)
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
                self._train.lengths,
                self._rows_of_step,
                self._seed,
                epoch,
                drop_last=False,
                bucketed=True,
            )
            self._order = epoch, batches
        return self._order[1][place]

    def _look(self, rate: float, sink: Sink) -> None:
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
        n = self._sums.pop("n")
        row: Row = {
            "step": self._n_steps,
            "epoch": self._n_steps / self._steps_of_epoch,
            **{f"train_{name}": value / n for name, value in sorted(self._sums.items())},
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
        sink.metrics(self._n_steps, {name: row[name] for name in row if name != "step"})
        self._sums = {}
        self._curve.append(row)
        if self._best_row < 0 or self._value(row) > self._value(self._curve[self._best_row]):
            self._best_row = len(self._curve) - 1
            tensors = self.reasoner.state_dict()
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        patience, n_worse = self.config.patience, len(self._curve) - 1 - self._best_row
        is_out = patience is not None and n_worse >= patience
        row["is_stopped_early"] = is_out and self._n_steps < self.n_iterations
        if row["is_stopped_early"]:
            best = self._curve[self._best_row]["step"]
            sink.message(
                f"Training ends after step {self._n_steps}: its validation side was best after "
                f"step {best}."
            )

    def _value(self, row: Row) -> tuple[float, float]:
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
