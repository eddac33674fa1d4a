"""Forgetting by fine-tuning on the same texts: what clamping is compared with.

    difference   L = -L(forget) + w L(retain)          (Liu et al. 2022; TOFU, arXiv:2401.06121)
    uniform      L = CE(evenly over the alternatives, forget) + w L(retain)
    ordinary     L = L(forget) + w L(retain)           (to learn again what was forgotten)

L is the mean of -log p over the tokens of replies, or of the whole text where nothing is replied.
Ascent does not end at forgetting: it goes on to any damage. So the weights that validation likes
best are kept, and training stops when it likes none better. Batches depend on the iteration alone,
and the loop can be saved and continued bit for bit.

Axes: batch passages, pos tokens, vocab.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import CorpusError, NumericsError
from fluoroscope.core.seeding import stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.interventions.answers import answer_tokens
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.studies.unlearning.clamping import UNTREATED, Treatment
from fluoroscope.studies.unlearning.config import FineTuningConfig
from fluoroscope.studies.unlearning.sets import Passage, Side
from fluoroscope.studies.unlearning.statistics import padded

Validate = Callable[[LanguageModel], float]
"""How far a model is from what is wanted; 0 is there."""


@dataclass
class _Best:
    weights: State = field(default_factory=dict)
    loss: float = math.inf
    iteration: int = 0


class FineTuner:
    """Trains a copy of a model; one `advance` is one step."""

    def __init__(
        self,
        model: LanguageModel,
        forget: Sequence[Passage],
        retain: Sequence[Passage],
        config: FineTuningConfig,
        validate: Validate | None = None,
        treatment: Treatment = UNTREATED,
    ) -> None:
        """`treatment` is active while it learns; without `validate` the last weights are kept."""
        if not forget or (config.retain_weight > 0 and not retain):
            raise CorpusError(
                f"Fine-tuning got {len(forget)} passages to forget and {len(retain)} to keep; give "
                "some of both, or retain_weight=0."
            )
        self.config, self.n_iterations = config, config.n_iterations
        network = copy.deepcopy(model.network).requires_grad_(True)
        name = f"{model.name}, fine-tuned"
        self.model = LanguageModel.from_network(network, model.tokenizer, name=name)
        """As it is now."""

        self._sides: Mapping[Side, Sequence[Passage]] = {"forget": forget, "retain": retain}
        self._validate, self._treatment = validate, treatment
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._best, self._n_since_best = _Best(), 0
        self.curve: dict[str, list[float]] = {}
        """`iteration` and `loss` at every validation."""

    @property
    def has_stopped(self) -> bool:
        return self._n_since_best >= self.config.patience

    @property
    def best_iteration(self) -> int:
        """After how many steps validation was best; 0 before the first look."""
        return self._best.iteration

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        """Nothing once it has stopped."""
        if self.has_stopped:
            return
        loss = self._loss("forget", iteration)
        if self.config.retain_weight:
            loss = loss + self.config.retain_weight * self._loss("retain", iteration)
        if not torch.isfinite(loss):
            raise NumericsError(
                f"The loss of fine-tuning became {float(loss.detach())} at step {iteration + 1}. "
                f"Give a smaller learning_rate than {self.config.learning_rate:g}."
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = self.model.network.parameters()
        torch.nn.utils.clip_grad_norm_(parameters, self.config.largest_gradient)
        self._optimizer.step()
        sink.metrics(iteration + 1, {"loss": float(loss.detach())})
        done = iteration + 1
        if done % self.config.validate_every == 0 or done == self.n_iterations:
            self._look(done, sink)

    def train(self, sink: Sink = SILENT) -> LanguageModel:
        """The whole loop, for use without a run; the best model."""
        for iteration in range(self.n_iterations):
            self.advance(iteration, sink)
            sink.progress(iteration + 1, self.n_iterations, "steps")
        return self.best()

    def best(self) -> LanguageModel:
        """A copy with the weights that validation liked best, for reading."""
        network = copy.deepcopy(self.model.network).requires_grad_(False)
        if self._best.weights:
            network.load_state_dict(self._best.weights)
        return LanguageModel.from_network(network, self.model.tokenizer, name=self.model.name)

    def state(self) -> State:
        return {
            "network": self.model.network.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "n_since_best": self._n_since_best,
            "curve": self.curve,
            "best": {
                "weights": self._best.weights,
                # JSON has no infinity.
                "loss": self._best.loss if self._best.weights else None,
                "iteration": self._best.iteration,
            },
        }

    def load(self, state: State) -> None:
        self.model.network.load_state_dict(state["network"])
        whole = self._optimizer.state_dict()
        whole["state"] = {int(key): value for key, value in state["optimizer"].items()}
        self._optimizer.load_state_dict(whole)
        self._n_since_best, self.curve = state["n_since_best"], state["curve"]
        best = state["best"]
        loss = best["loss"] if best["weights"] else math.inf
        self._best = _Best(best["weights"], loss, best["iteration"])

    def _look(self, done: int, sink: Sink) -> None:
        if self._validate is None:
            return
        loss = self._validate(self.model)
        self.curve.setdefault("iteration", []).append(float(done))
        self.curve.setdefault("loss", []).append(loss)
        sink.metrics(done, {"validation": loss})
        self._n_since_best += 1
        if loss < self._best.loss:
            weights = {name: t.clone() for name, t in self.model.network.state_dict().items()}
            self._best, self._n_since_best = _Best(weights, loss, done), 0

    def _loss(self, side: Side, iteration: int) -> Float[Tensor, ""]:
        passages = self._batch(side, iteration)
        read = _read(self.model, passages)
        treated = self._treatment.rows(self.model, [one.prompt for one in passages])
        with treated if self._treatment.edits else nullcontext():
            logits = self.model.forward(read.tokens, read.mask)
        if side == "forget" and self.config.objective == "uniform":
            return even_loss(self.model, passages, read, logits)
        sign = -1.0 if side == "forget" and self.config.objective == "difference" else 1.0
        return sign * reply_loss(read, logits)

    def _batch(self, side: Side, iteration: int) -> list[Passage]:
        passages = self._sides[side]
        luck = stream(self.config.seed, "fine-tuning", side, iteration)
        n = min(self.config.batch_size, len(passages))
        return [passages[int(i)] for i in luck.choice(len(passages), n, replace=False)]


class Read(NamedTuple):
    """Passages as one rectangle of tokens."""

    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    starts: tuple[int, ...]
    """The first position of each row whose token is learnt from."""


def reply_loss(read: Read, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, ""]:
    """The mean of -log p over the tokens of replies."""
    scores = logits[:, :-1].float().log_softmax(dim=-1)
    tokens = read.tokens[:, 1:].to(scores.device)
    found = scores.gather(-1, tokens[..., None])[..., 0]
    counts = _learnt(read)[:, 1:].to(found)
    return -(found * counts).sum() / counts.sum()


def even_loss(
    model: LanguageModel,
    passages: Sequence[Passage],
    read: Read,
    logits: Float[Tensor, "batch pos vocab"],
) -> Float[Tensor, ""]:
    """Cross-entropy with the first tokens of all alternatives, each as likely; where there are
    none, with all tokens at every position.
    """
    scores = logits.float().log_softmax(dim=-1)
    total = scores.new_zeros(())
    for row, passage in enumerate(passages):
        start = read.starts[row]
        if not passage.alternatives:
            length = int(read.mask[row].sum())
            total = total - scores[row, start - 1 : length - 1].mean()
            continue
        firsts = [answer_tokens(model, passage.prompt, one)[0] for one in passage.alternatives]
        total = total - scores[row, start - 1, firsts].mean()
    return total / len(passages)


def _learnt(read: Read) -> Int[Tensor, "batch pos"]:
    place = torch.arange(read.tokens.shape[1])
    return read.mask * (place >= torch.tensor(read.starts)[:, None])


def _read(model: LanguageModel, passages: Sequence[Passage]) -> Read:
    rows: list[list[int]] = []
    starts = []
    for one in passages:
        row = list(model.tokenizer(one.text)["input_ids"])[: model.context_length]
        # What begins a text is given, and nothing can be learnt of it.
        start = 1
        if one.reply:
            start = len(row) - len(answer_tokens(model, one.prompt, one.reply))
        if len(row) < 2 or not 0 < start < len(row):
            raise CorpusError(
                f"{one.text[:60]!r} has no token that follows another, or its prompt fills the "
                f"{model.context_length} positions of the model; leave it out."
            )
        rows.append(row)
        starts.append(start)
    tokens, mask = padded(model, rows)
    return Read(tokens, mask, tuple(starts))
