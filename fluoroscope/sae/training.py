"""Training many SAEs (layers x architectures x sparsities x widths x seeds) from one stream.

One batch of activations feeds every SAE of its hook point, so a model is read once however
many SAEs learn from it. Each SAE learns in units where its input has unit variance per
dimension around that median, so one learning rate serves every layer of every model; the scale is
folded away when weights leave the trainer.

Recipe: `b_dec` starts at the geometric median (Bricken et al. 2023) or, to compare, elsewhere;
the encoder as the decoder's transpose, decoder rows keep unit norm, AuxK revives dead latents
(Gao et al. 2024, appendix A.2), Adam with a short memory, warm-up and a final linear decay. The
trainer is a loop that can be stopped, saved and continued bit for bit.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.base import SAEConfig, SparseAutoencoder, TrainingStep
from fluoroscope.sae.training_config import Start, TrainingConfig

BETAS = (0.5, 0.999)
"""Adam's. A latent is active in few rows, so a long memory of its gradients is stale: 0.9 left a
quarter more unexplained than 0.5 (docs/decisions/the-learning-rate.md)."""


class SAEVariant(NamedTuple):
    """One SAE to train."""

    key: str
    """Its name among the others; file-name safe."""

    hook_point: HookPoint
    architecture: str
    config: SAEConfig
    seed: int


class Batches(Protocol):
    """Where activations come from; `ActivationStream` is one."""

    def next_batch(self) -> Mapping[HookPoint, Tensor]: ...
    def state(self) -> State: ...
    def load(self, state: State) -> None: ...


class Rows(NamedTuple):
    """Fixed rows of one hook point, held in memory."""

    training: Float[Tensor, "n d_model"]
    """For the start and for calibration."""

    validation: Float[Tensor, "m d_model"]
    """Never trained on; choose the best weights."""


class TrainedSAE(NamedTuple):
    best: SparseAutoencoder
    """Weights with the lowest validation loss, in the units of the activations."""

    last: SparseAutoencoder
    best_step: int
    best_loss: float
    n_samples: int


class SAETrainer:
    """Trains all `variants` together; one `advance` is one step of each."""

    def __init__(
        self,
        variants: Sequence[SAEVariant],
        batches: Batches,
        rows: Mapping[HookPoint, Rows],
        config: TrainingConfig,
        n_iterations: int,
        device: str = "cpu",
    ) -> None:
        self.n_iterations = n_iterations
        self.config = config
        self._batches = batches
        self._learners = {
            variant.key: _Learner(variant, rows[variant.hook_point], config, n_iterations, device)
            for variant in variants
        }

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        batch = self._batches.next_batch()
        losses: dict[str, float] = {}
        validate = self._validates(iteration)
        for key, learner in self._learners.items():
            learner.step(batch[learner.variant.hook_point], iteration)
            if validate:
                losses |= {f"{key}/{name}": v for name, v in learner.validate(iteration).items()}
        if losses:
            sink.metrics(iteration + 1, losses)

    def train(self, sink: Sink = SILENT) -> dict[str, TrainedSAE]:
        """The whole loop, for use without a run."""
        for iteration in range(self.n_iterations):
            self.advance(iteration, sink)
            sink.progress(iteration + 1, self.n_iterations, "steps")
        return dict(self.results())

    def results(self) -> Iterator[tuple[str, TrainedSAE]]:
        """The SAEs as they are now, calibrated and folded."""
        for key, learner in self._learners.items():
            yield key, learner.result()

    def state(self) -> State:
        learners = {key: learner.state() for key, learner in self._learners.items()}
        return {"learners": learners, "batches": self._batches.state()}

    def load(self, state: State) -> None:
        for key, learner in self._learners.items():
            learner.load(state["learners"][key])
        self._batches.load(state["batches"])

    @property
    def curves(self) -> dict[str, dict[str, list[float]]]:
        """SAE key -> `step`, `loss`, `fvu`, `l0`, `dead_fraction` at every validation so far."""
        return {key: learner.curve for key, learner in self._learners.items()}

    def _validates(self, iteration: int) -> bool:
        done = iteration + 1
        every = self.config.validate_every or max(1, self.n_iterations // 40)
        return done % every == 0 or done == self.n_iterations


@dataclass
class _Best:
    parameters: State
    loss: float
    step: int


class _Learner:
    """One SAE, its optimiser, and what it remembers of its training."""

    def __init__(
        self,
        variant: SAEVariant,
        rows: Rows,
        config: TrainingConfig,
        n_iterations: int,
        device: str,
    ) -> None:
        self.variant = variant
        self._config = config
        self._n_iterations = n_iterations
        self._device = device
        # Other layers, architectures and sizes begin elsewhere: SAEs that began alike share what
        # is left of it, and would seem to have found the same.
        start = derive_seed(
            variant.seed, str(variant.hook_point), variant.architecture, variant.config.d_sae
        )
        self._sae = SAES.load(variant.architecture)(variant.config, start).to(device)
        middle = geometric_median(rows.training).to(device)
        spread = (rows.training.to(device) - middle).square().sum(dim=-1).mean().sqrt()
        if not torch.isfinite(spread) or spread == 0:
            raise NumericsError(
                f"The activations of {variant.hook_point} have a spread of {float(spread)} in "
                f"{len(rows.training)} rows; an SAE can only learn where they are finite and vary."
            )
        self._scale = float(variant.config.d_model**0.5 / spread)
        self._training = (rows.training.to(device) * self._scale).float()
        self._validation = (rows.validation.to(device) * self._scale).float()
        with torch.no_grad():
            # The units are the same wherever b_dec begins, so that nothing else differs by it.
            self._sae.b_dec.copy_(_start(self._training, config.start, middle * self._scale))
        self._sae.start(self._training)
        self._rate = config.learning_rate or default_learning_rate(
            variant.config.d_model, n_iterations
        )
        self._optimizer = torch.optim.Adam(
            self._sae.parameters(), lr=self._rate, betas=BETAS, fused=True
        )
        self._silent_for = torch.zeros(variant.config.d_sae, dtype=torch.int64, device=device)
        total = n_iterations * config.batch_size
        self._dead_after = config.dead_after or max(1, min(10_000_000, total // 20))
        self._best = _Best({}, float("inf"), 0)
        self.curve: dict[str, list[float]] = {}

    def step(self, batch: Float[Tensor, "n d_model"], iteration: int) -> None:
        x = batch.to(self._device, torch.float32, non_blocking=True) * self._scale
        step = self._sae.training_step(x, iteration / self._n_iterations)
        loss = step.loss + self._revival_loss(x, step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * self._schedule(iteration)
        self._optimizer.step()
        self._sae.normalise_decoder()
        self._silent_for += len(x)
        self._silent_for[step.active > 0] = 0

    def validate(self, iteration: int) -> dict[str, float]:
        """Numbers on the validation rows; remembers the weights if they are the best."""
        n_rows = len(self._validation)
        loss = fvu = l0 = 0.0
        with torch.no_grad():
            centred = (self._validation - self._validation.mean(dim=0)).square().sum()
            for x in self._validation.split(self._config.batch_size):
                # The loss of the end of training: while a penalty warms up, early weights that
                # are not sparse yet would pass for the best.
                step = self._sae.training_step(x, 1.0)
                loss += float(step.loss) * len(x) / n_rows
                fvu += float((step.reconstruction - x).square().sum() / centred)
                l0 += float(step.active.sum()) / n_rows
        if loss != loss:
            raise NumericsError(
                f"The loss of {self.variant.key} became NaN at step {iteration + 1}. "
                f"Give a smaller training.learning_rate than {self._rate:.2g}."
            )
        if loss < self._best.loss:
            weights = {name: t.clone() for name, t in self._sae.state_dict().items()}
            self._best = _Best(weights, loss, iteration + 1)
        dead = float((self._silent_for >= self._dead_after).float().mean())
        measured = {"loss": loss, "fvu": fvu, "l0": l0, "dead_fraction": dead}
        for name, value in {"step": iteration + 1.0, **measured}.items():
            self.curve.setdefault(name, []).append(value)
        return measured

    def result(self) -> TrainedSAE:
        last = self._finished(self._sae.state_dict())
        best = self._finished(self._best.parameters) if self._best.parameters else last
        n_samples = self._n_iterations * self._config.batch_size
        return TrainedSAE(best, last, self._best.step, self._best.loss, n_samples)

    def state(self) -> State:
        return {
            "sae": self._sae.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "silent_for": self._silent_for,
            "curve": self.curve,
            "best": {
                "parameters": self._best.parameters,
                # JSON has no infinity.
                "loss": self._best.loss if self._best.parameters else None,
                "step": self._best.step,
            },
        }

    def load(self, state: State) -> None:
        self._sae.load_state_dict(state["sae"])
        whole = self._optimizer.state_dict()
        whole["state"] = {int(key): value for key, value in state["optimizer"].items()}
        self._optimizer.load_state_dict(whole)
        self._silent_for = state["silent_for"].to(self._device)
        self.curve = state["curve"]
        best = state["best"]
        loss = best["loss"] if best["parameters"] else float("inf")
        self._best = _Best(best["parameters"], loss, best["step"])

    def _schedule(self, iteration: int) -> float:
        done, total = iteration + 1, self._n_iterations
        warmup, decay = self._config.warmup * total, self._config.decay * total
        rising = min(1.0, done / warmup) if warmup >= 1 else 1.0
        # The last step still moves: (total - iteration) is 1 there.
        return min(rising, (total - iteration) / decay if decay >= 1 else 1.0, 1.0)

    def _revival_loss(self, x: Float[Tensor, "n d_model"], step: TrainingStep) -> Tensor | float:
        """AuxK: the dead latents with the largest pre-activations reconstruct the residual.

        Weighed against the residual, not the input: the better the live latents, the less would
        the dead be asked for.
        """
        coefficient = self._config.auxk_coefficient
        dead = (self._silent_for >= self._dead_after).nonzero()[:, 0]
        if coefficient == 0 or len(dead) == 0:
            return 0.0
        some = slice(None, None, self._config.auxk_every)
        sae, x = self._sae, x[some]
        residual = (x - step.reconstruction[some]).detach()
        k = min(self._config.auxk or max(1, sae.d_model // 2), len(dead))
        pre = (x - sae.b_dec.detach()) @ sae.W_enc_T[dead].T + sae.b_enc[dead]
        values, indices = pre.topk(k, dim=-1, sorted=False)
        latents = torch.zeros_like(pre).scatter(-1, indices, values.relu())
        error = (latents @ sae.W_dec[dead] - residual).square().sum()
        left = residual.square().sum()
        # Where nothing is left to explain, nothing is asked for.
        return coefficient * error / left if left > 0 else 0.0

    @torch.no_grad()
    def _finished(self, parameters: State) -> SparseAutoencoder:
        sae = copy.deepcopy(self._sae)
        sae.load_state_dict(parameters)
        sae.calibrate(self._training)
        return sae.fold_scale(self._scale).eval()


def default_learning_rate(d_model: int, n_iterations: int) -> float:
    """`0.12 / sqrt(d_model) * min(1, (500 / steps)^(1/4))`; see docs/decisions.

    Adam moves every weight by about the rate, and a decoder row of unit norm has weights of
    `1 / sqrt(d_model)`: so a step turns a row by the same angle at every width.
    """
    return 0.12 / d_model**0.5 * min(1.0, (500 / n_iterations) ** 0.25)


def _start(
    rows: Float[Tensor, "n d_model"], start: Start, median: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_model"]:
    match start:
        case "geometric_median":
            return median
        case "mean":
            return rows.mean(dim=0)
        case "zero":
            return torch.zeros_like(rows[0])


def geometric_median(
    rows: Float[Tensor, "n d"], tolerance: float = 1e-6, max_iterations: int = 100
) -> Float[Tensor, " d"]:
    """The point with the least mean distance to the rows (Weiszfeld's iteration, in float64)."""
    points = rows.double()
    median = points.mean(dim=0)
    for _ in range(max_iterations):
        weights = 1 / (points - median).norm(dim=-1).clamp(min=1e-12)
        moved = (weights @ points) / weights.sum()
        if (moved - median).norm() <= tolerance * median.norm():
            return moved.to(rows.dtype)
        median = moved
    return median.to(rows.dtype)
