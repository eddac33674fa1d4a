"""Answers of a slot network as `generate` gives texts: each row by its own seed, limit and stops.

Rows think together and are written together, `max_rows` at a time; those that are done wait for
their batch, as answers are short.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import NumericsError
from fluoroscope.data.questions.tokenizer import TextTokenizer
from fluoroscope.models.requests import Prepared
from fluoroscope.models.sampling import Sampling, row_luck
from fluoroscope.models.texts import Finish, Generation
from fluoroscope.studies.connection.network.reasoner import Reasoner, Thought


class EditedThought(NamedTuple):
    thought: Thought
    n_edits: list[int]
    """Edits that were applied to each text, one for every slot; checked against what they should
    be."""


Thinks = Callable[[Tensor, Tensor, Sequence[int]], EditedThought]
"""Of tokens and mask [b, s], and of the request that each row serves."""


@dataclass(frozen=True)
class AnswerWriter:
    reasoner: Reasoner
    tokenizer: TextTokenizer
    think: Thinks
    sampling: Sampling
    logprobs: bool

    def write(self, prepared: Sequence[Prepared], max_rows: int) -> Iterator[Generation]:
        for start in range(0, len(prepared), max_rows):
            rows = range(start, min(start + max_rows, len(prepared)))
            yield from self._write_some(rows, [prepared[row] for row in rows])

    @torch.no_grad()
    def _write_some(self, rows: Sequence[int], prepared: Sequence[Prepared]) -> list[Generation]:
        thought, n_edits = self._read(rows, prepared)
        writing = self.reasoner.begin(thought)
        answers = [_Answer(self.tokenizer, one) for one in prepared]
        last = torch.full_like(thought.n_steps, self.reasoner.pad_id)
        for lucky in _luck(prepared).to(last.device):
            logits = self.reasoner.write(writing, last)
            _check_numbers(logits, rows, answers)
            last = self.sampling.choose(logits, lucky)
            scores: list[float | None] = [None] * len(rows)
            if self.logprobs:
                scores = logits.double().log_softmax(dim=-1).gather(1, last[:, None])[:, 0].tolist()
            for answer, token, score in zip(answers, last.tolist(), scores, strict=True):
                answer.add(token, score)
            if all(answer.finish for answer in answers):
                break
        return [
            answer.generation(row, edits)
            for answer, row, edits in zip(answers, rows, n_edits, strict=True)
        ]

    def _read(self, rows: Sequence[int], prepared: Sequence[Prepared]) -> EditedThought:
        width = max(len(one.prompt) for one in prepared)
        tokens = torch.full((len(rows), width), self.reasoner.pad_id)
        mask = torch.zeros_like(tokens)
        for i, one in enumerate(prepared):
            tokens[i, : len(one.prompt)] = torch.tensor(one.prompt)
            mask[i, : len(one.prompt)] = 1
        return self.think(tokens, mask, rows)


def _luck(prepared: Sequence[Prepared]) -> Float[Tensor, "t b"]:
    """What draws each token of each answer; nothing behind an answer's limit."""
    luck = np.zeros((max(one.limit for one in prepared), len(prepared)))
    for i, one in enumerate(prepared):
        luck[: one.limit, i] = row_luck(one.seed, one.limit)
    return torch.from_numpy(luck)


class _Answer:
    """One answer as it comes; what is drawn after its end is not part of it."""

    def __init__(self, tokenizer: TextTokenizer, prepared: Prepared) -> None:
        self._tokenizer, self._prepared = tokenizer, prepared
        self._tokens: list[int] = []
        self._scores: list[float] = []
        self._text: str | None = None
        self.finish: Finish | None = None

    @property
    def n_tokens(self) -> int:
        return len(self._tokens)

    def add(self, token: int, score: float | None) -> None:
        if self.finish:
            return
        self._tokens.append(token)
        if score is not None:
            self._scores.append(score)
        self.finish = self._finish(token)

    def generation(self, request: int, n_edits: int) -> Generation:
        assert self.finish is not None, "a row ends with its limit at the latest"
        text = self._said() if self._text is None else self._text
        return Generation(
            request=request,
            text=text,
            tokens=tuple(self._tokens),
            finish=self.finish,
            n_prompt=len(self._prepared.prompt),
            n_edits=n_edits,
            logprobs=tuple(self._scores) or None,
        )

    def _finish(self, token: int) -> Finish | None:
        rule, is_stop = self._prepared.rule, token in self._prepared.rule.tokens
        if rule.strings:
            said = self._said(is_stop)
            places = [place for string in rule.strings if (place := said.find(string)) >= 0]
            if places:
                self._text = said[: min(places)]
                return "stop_string"
        if is_stop:
            self._text = self._said(is_stop)
            return "stop_token"
        if len(self._tokens) < self._prepared.limit:
            return None
        return "context" if self._prepared.is_cut_by_context else "length"

    def _said(self, without_last: bool = False) -> str:
        return self._tokenizer.decode(self._tokens[: len(self._tokens) - without_last])


def _check_numbers(
    logits: Float[Tensor, "b v"], rows: Sequence[int], answers: Sequence[_Answer]
) -> None:
    for i in (~logits.amax(dim=-1).isfinite()).nonzero().flatten().tolist():
        if not answers[i].finish:
            raise NumericsError(
                f"The logits of request {rows[i]} are NaN or infinite at token "
                f"{answers[i].n_tokens} of its answer: nothing can be drawn from them. An edit may "
                f"be too large, or {logits.dtype} too small for this model."
            )
