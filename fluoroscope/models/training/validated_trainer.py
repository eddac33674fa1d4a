"""What is alike in trainings that look at a validation side and keep the best of these looks.

Such a training can be put down after any step and taken up bit for bit: the batches of an epoch
depend on the seed and the epoch, what is dropped on the seed and the step, and the rest is in
`state`. As one of several processes it reads its slice of the same batches; gradients are those of
the whole batch, so every process has the same weights.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import Optimizer

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.models.training.rates import Schedule, rate_share, set_rates

ResultT = TypeVar("ResultT")

Row = dict[str, Any]  # Any: a number of a look, or whether training ended with it.


class Learned(NamedTuple):
    """What is known of a step when its gradients are there."""

    loss: float
    """Of all its rows; where it is no number training ends."""

    told: dict[str, float]
    """Added up from look to look."""


class Course(NamedTuple):
    """How a training goes on, and when it ends."""

    steps_of_epoch: int
    n_steps: int
    """That are done, unless it ends early."""

    n_planned: int
    """That rates are planned for, of which `n_steps` may be the first."""

    patience: int | None
    """Looks without a better one after which it ends; null goes on."""

    peak: float
    """The rate of which each step has a share."""

    schedule: Schedule
    warmup_share: float
    floor: float
    clip: float | None


class ValidatedTrainer(ABC, Generic[ResultT]):
    """A trainer says how its rows are learned from and how its validation side is looked at.

    The best look is the one with the best `_value`, the earliest of equals. The network is trained
    in place; at the end it is in its last state, and `result` has the best.
    """

    def __init__(
        self, optimiser: Optimizer, course: Course, mates: Acceleration, *, seed: int
    ) -> None:
        self.n_iterations = course.n_steps
        self._optimiser, self._course, self._mates = optimiser, course, mates
        self._device, self._seed = mates.device, seed
        groups = optimiser.param_groups
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self._order: tuple[int, list[np.ndarray]] | None = None
        self._n_steps = 0
        self._sums: dict[str, float] = {}
        self._curve: list[Row] = []
        self._best: dict[str, Tensor] = {}
        self._best_row = -1

    @abstractmethod
    def result(self) -> ResultT:
        """The best look so far; there must have been one."""

    @abstractmethod
    def _learned(self, rows: Int[np.ndarray, " n"], iteration: int, sink: Sink) -> Learned:
        """Leaves the gradients of these rows' mean loss, those of this process where there are
        several; what is known is of all rows.
        """

    @abstractmethod
    def _look(self, rate: float) -> Row:
        """The row of a look at the validation side."""

    @abstractmethod
    def _is_due(self) -> bool:
        """Whether a look is due after the step that was just done."""

    @abstractmethod
    def _value(self, row: Row) -> tuple[float, ...]:
        """More is better."""

    @abstractmethod
    def _batches(self, epoch: int) -> list[Int[np.ndarray, " n"]]:
        """The rows of each step of an epoch."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """What is trained."""

    @abstractmethod
    def _load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up what `_tensors` gave."""

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
        if self._is_due():
            self._keep(self._look(rate), sink)

    def train(self, sink: Sink = SILENT) -> ResultT:
        """All that is left, for use without a run."""
        for iteration in range(self._n_steps, self.n_iterations):
            self.advance(iteration, sink)
            sink.progress(iteration + 1, self.n_iterations, "steps")
        return self.result()

    def state(self) -> State:
        return {
            "n_steps": self._n_steps,
            "tensors": self._tensors(),
            "optimiser": self._optimiser.state_dict()["state"],
            "scaler": self._mates.state(),
            "sums": dict(self._sums),
            "curve": [dict(row) for row in self._curve],
            "best": self._best,
            "best_row": self._best_row,
        }

    def load(self, state: State) -> None:
        self._n_steps = state["n_steps"]
        self._load_tensors(state["tensors"])
        whole = self._optimiser.state_dict()
        # Copies, as torch takes moments as they are and goes on in place.
        moments = {
            key: {name: tensor.clone() for name, tensor in of_one.items()}
            for key, of_one in state["optimiser"].items()
        }
        self._optimiser.load_state_dict({**whole, "state": moments})
        self._mates.load(state["scaler"])
        self._sums, self._curve = dict(state["sums"]), [dict(row) for row in state["curve"]]
        self._best, self._best_row = state["best"], state["best_row"]

    def _step(self, iteration: int, sink: Sink) -> float:
        """Learns from the rows of one step; the rate it did so with."""
        course = self._course
        part = rate_share(
            iteration, course.n_planned, course.schedule, course.warmup_share, course.floor
        )
        set_rates(self._optimiser, part)
        loss, told = self._learned(self._rows(iteration), iteration, sink)
        self._mates.total_gradients(self._parameters)
        norm = self._mates.clip(self._optimiser, self._parameters, course.clip)
        is_norm = math.isfinite(norm) or self._mates.may_be_infinite
        if not (math.isfinite(loss) and is_norm):
            raise NumericsError(
                f"In step {iteration + 1} of {course.n_planned} the loss is {loss:g} "
                f"and the norm of its gradient {norm:g}. Give a smaller learning_rate than "
                f"{course.peak:.2g}, a longer warm-up, or precision=float32."
            )
        self._mates.step(self._optimiser)
        for name, value in {**told, "grad_norm": norm, "n_steps": 1.0}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return course.peak * part

    def _rows(self, iteration: int) -> Int[np.ndarray, " n"]:
        epoch, place = divmod(iteration, self._course.steps_of_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._batches(epoch)
        return self._order[1][place]

    @contextmanager
    def _dropout(self, *of: int) -> Iterator[None]:
        """What is dropped depends on the seed, on `of` and on the process alone."""
        seed = derive_seed(self._seed, "dropout", *of, self._mates.rank)
        on_gpu = self._device.type == "cuda"
        with torch.random.fork_rng([self._device] if on_gpu else []):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                # Not `torch.manual_seed`, which would move the streams of other devices.
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(seed)
            yield

    def _keep(self, row: Row, sink: Sink) -> None:
        """Takes a look into the curve, and what was looked at where it is the best."""
        sink.metrics(self._n_steps, {name: row[name] for name in row if name != "step"})
        self._sums = {}
        self._curve.append(row)
        if self._best_row < 0 or self._value(row) > self._value(self._curve[self._best_row]):
            self._best_row = len(self._curve) - 1
            # A copy also where they are on the CPU: the next step goes on in place.
            self._best = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in self._tensors().items()
            }
        patience, n_worse = self._course.patience, len(self._curve) - 1 - self._best_row
        is_out = patience is not None and n_worse >= max(patience, 1)
        row["is_stopped_early"] = is_out and self._n_steps < self.n_iterations
        if row["is_stopped_early"]:
            best = self._curve[self._best_row]["step"]
            sink.message(
                f"Training ends after step {self._n_steps}: its validation side was best after "
                f"step {best}."
            )
