"""What a reasoner answers to a whole side of questions, written token by token and never told.

Axes: n questions, t tokens of an answer, k steps.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch.nn import functional

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.data.labelled.batches import side_batches
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.studies.connection.asking import Asked, Questions
from fluoroscope.studies.connection.network.decoding import answer
from fluoroscope.studies.connection.network.losses import IGNORED
from fluoroscope.studies.connection.network.reasoner import Reasoner
from fluoroscope.studies.connection.objective import steps_of
from fluoroscope.studies.connection.training_config import ThinkingConfig


class Answered(NamedTuple):
    """In the order of the questions; on the CPU."""

    ids: Int[np.ndarray, "n t"]
    """Padded behind the end."""

    is_exact: Bool[np.ndarray, " n"]
    """Whether all tokens are those of the answer, the end among them; never where the answer was
    cut, as its beginning is not the answer."""

    losses: Float[np.ndarray, " n"]
    """Mean nats a token of the answer that is asked for, each told the ones before; float64."""

    n_steps: Int[np.ndarray, " n"]
    changes: Float[np.ndarray, "k n"]
    """Relative change of the states in each step; NaN where fewer were done."""


def answer_all(
    reasoner: Reasoner,
    questions: Questions,
    thinking: ThinkingConfig,
    *,
    batch_size: int,
    max_tokens: int,
    eos_id: int,
    device: str,
    mates: Acceleration | None = None,
    sink: Sink = SILENT,
) -> Answered:
    """Answers of at most `max_tokens` tokens; with `mates` each process does its part, and all get
    everything.
    """
    if len(questions) == 0:
        raise CorpusError("A side without questions cannot be answered.")
    found = _Found(len(questions), max_tokens, reasoner.pad_id)
    batches = side_batches(questions.lengths, batch_size)
    rank, n_processes = (mates.rank, mates.n_processes) if mates else (0, 1)
    was_training = reasoner.training
    reasoner.eval()
    try:
        for at in range(rank, len(batches), n_processes):
            rows = np.asarray(batches[at])
            _answer_some(reasoner, questions.ask(rows, device), rows, thinking, eos_id, found)
            sink.progress(at + 1, len(batches), "batches")
    finally:
        reasoner.train(was_training)
    whole = found.together(mates, device)
    return whole._replace(is_exact=whole.is_exact & ~questions.is_target_cut)


class _Found:
    """What was found so far; 0 where another process looks."""

    def __init__(self, n: int, max_tokens: int, pad_id: int) -> None:
        self.pad_id = pad_id
        # Less the id of padding, so that the parts of processes add up.
        self.ids = np.zeros((n, max_tokens), np.int64)
        self.table = np.zeros((3, n))
        self.changes = np.zeros((0, n))

    def grow(self, n_steps: int) -> None:
        missing = n_steps - len(self.changes)
        if missing > 0:
            more = np.zeros((missing, self.changes.shape[1]))
            self.changes = np.concatenate([self.changes, more])

    def together(self, mates: Acceleration | None, device: str) -> Answered:
        if mates is not None and mates.n_processes > 1:
            most = torch.tensor([0.0] * mates.n_processes, device=device)
            most[mates.rank] = len(self.changes)
            self.grow(int(mates.total(most).max()))
            self.ids, self.table, self.changes = (
                mates.total(torch.from_numpy(part).to(device)).cpu().numpy()
                for part in (self.ids, self.table, self.changes)
            )
        n_steps = self.table[2].astype(np.int64)
        is_done = np.arange(len(self.changes))[:, None] < n_steps
        return Answered(
            ids=self.ids + self.pad_id,
            is_exact=self.table[0] > 0,
            losses=self.table[1],
            n_steps=n_steps,
            changes=np.where(is_done, self.changes, np.nan),
        )


@torch.no_grad()
def _answer_some(
    reasoner: Reasoner,
    asked: Asked,
    rows: Int[np.ndarray, " b"],
    thinking: ThinkingConfig,
    eos_id: int,
    found: _Found,
) -> None:
    batch, n_steps = asked.texts, steps_of(asked, thinking, reasoner)
    said = answer(reasoner, batch.ids, batch.mask, found.ids.shape[1], eos_id, n_steps)
    logits = reasoner.logits(said.thought, batch.target_in)
    losses = functional.cross_entropy(
        logits.transpose(1, 2).double(), batch.labels, ignore_index=IGNORED, reduction="none"
    ).sum(dim=1) / (batch.labels != IGNORED).sum(dim=1)
    ids = said.ids.cpu().numpy()
    found.ids[rows, : ids.shape[1]] = ids - found.pad_id
    labels = batch.labels.cpu().numpy()
    wanted = np.where(labels == IGNORED, found.pad_id, labels)
    found.table[0, rows] = _is_exact(ids, wanted, found.pad_id)
    found.table[1, rows] = losses.cpu().numpy()
    found.table[2, rows] = said.thought.n_steps.cpu().numpy()
    changes = said.thought.changes.double().cpu().numpy()
    found.grow(len(changes))
    found.changes[: len(changes), rows] = changes


def _is_exact(
    said: Int[np.ndarray, "b t"], wanted: Int[np.ndarray, "b w"], pad_id: int
) -> Bool[np.ndarray, " b"]:
    """Both are padded behind their ends, with what no answer holds."""
    width = max(said.shape[1], wanted.shape[1])
    one, other = (
        np.pad(ids, ((0, 0), (0, width - ids.shape[1])), constant_values=pad_id)
        for ids in (said, wanted)
    )
    return (one == other).all(axis=1)
