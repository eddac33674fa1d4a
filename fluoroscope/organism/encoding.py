"""Prompts with replies -> tokens, and the true distribution of every token of a reply.

A distribution over replies is a tree over their tokens. Along one path through it, every
position has a whole distribution as its target: nothing is wasted on sampling.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from fluoroscope.organism.prompts import Prompt, Replies


class Rows(NamedTuple):
    """Encoded prompts, right-padded, with the targets along one path of replies each.

    A target is known by the row and position of the token *before* it. Axes: n rows, k targets,
    c choices at most.
    """

    tokens: Int[Tensor, "n pos"]
    length: Int[Tensor, " n"]
    decision: Int[Tensor, " n"]
    """Position of the last token of the prompt."""

    at_row: Int[Tensor, " k"]
    at_position: Int[Tensor, " k"]
    choices: Int[Tensor, "k c"]
    """Token ids; 0 where there are fewer."""

    shares: Float[Tensor, "k c"]
    """Probabilities of the choices, zero where there are fewer."""

    other_shares: Float[Tensor, "k c"]
    """The same if the variable had its other value; all zero where the path cannot be reached."""


class Encoder:
    """Remembers the tokens of replies, of which there are few."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._replies: dict[str, tuple[int, ...]] = {}
        vocabulary = tokenizer.get_vocab()
        self.pad, self._end = vocabulary["<pad>"], vocabulary["<eos>"]

    def prompt(self, text: str) -> list[int]:
        """With `<bos>` before it."""
        return list(self._tokenizer(text)["input_ids"])

    def reply(self, text: str) -> tuple[int, ...]:
        """With `<eos>` behind it."""
        if text not in self._replies:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            self._replies[text] = (*ids, self._end)
        return self._replies[text]

    def rows(
        self, prompts: Sequence[Prompt], others: Sequence[float], luck: np.random.Generator
    ) -> Rows:
        """One path each, drawn half by the variable's own value and half by its other one."""
        sequences: list[list[int]] = []
        decisions: list[int] = []
        targets: list[tuple[int, int, dict[int, tuple[float, float]]]] = []
        for row, (prompt, other) in enumerate(zip(prompts, others, strict=True)):
            start = self.prompt(prompt.text)
            replies = self._pairs(prompt.replies(), prompt.replies(other))
            path = _draw_path(replies, luck)
            decisions.append(len(start) - 1)
            sequences.append([*start, *path])
            for depth, choices in enumerate(_choices_along(replies, path)):
                targets.append((row, len(start) - 1 + depth, choices))
        return self._padded(sequences, decisions, targets)

    def _pairs(self, own: Replies, other: Replies) -> dict[tuple[int, ...], tuple[float, float]]:
        return {self.reply(text): (p, other[text]) for text, p in own.items()}

    def _padded(
        self,
        sequences: list[list[int]],
        decisions: list[int],
        targets: list[tuple[int, int, dict[int, tuple[float, float]]]],
    ) -> Rows:
        longest = max(map(len, sequences))
        widest = max(len(choices) for _, _, choices in targets)
        tokens = torch.full((len(sequences), longest), self.pad)
        for row, ids in enumerate(sequences):
            tokens[row, : len(ids)] = torch.tensor(ids)
        choices = torch.zeros(len(targets), widest, dtype=torch.int64)
        shares = torch.zeros(2, len(targets), widest)
        for i, (_, _, found) in enumerate(targets):
            choices[i, : len(found)] = torch.tensor(list(found))
            shares[:, i, : len(found)] = torch.tensor(list(found.values())).T
        return Rows(
            tokens,
            torch.tensor([len(ids) for ids in sequences]),
            torch.tensor(decisions),
            torch.tensor([row for row, _, _ in targets]),
            torch.tensor([position for _, position, _ in targets]),
            choices,
            _normalised(shares[0]),
            _normalised(shares[1]),
        )


def _draw_path(
    replies: Mapping[tuple[int, ...], tuple[float, float]], luck: np.random.Generator
) -> tuple[int, ...]:
    shares = np.array([sum(pair) for pair in replies.values()])
    return list(replies)[int(luck.choice(len(shares), p=shares / shares.sum()))]


def _choices_along(
    replies: Mapping[tuple[int, ...], tuple[float, float]], path: tuple[int, ...]
) -> list[dict[int, tuple[float, float]]]:
    """At each depth of the path: next token -> the mass behind it, under both values."""
    found: list[dict[int, tuple[float, float]]] = []
    left = dict(replies)
    for depth, token in enumerate(path):
        choices: dict[int, tuple[float, float]] = {}
        for reply, (own, other) in left.items():
            before = choices.get(reply[depth], (0.0, 0.0))
            choices[reply[depth]] = (before[0] + own, before[1] + other)
        found.append(choices)
        left = {reply: pair for reply, pair in left.items() if reply[depth] == token}
    return found


def _normalised(shares: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
    total = shares.sum(dim=-1, keepdim=True)
    # A path that one of the two values rules out has no distribution under it: no target.
    return torch.where(total > 1e-9, shares / total.clamp(min=1e-9), 0.0)


def prompt_mask(rows: Rows) -> Bool[Tensor, "n pos"]:
    """The positions whose next token is part of the prompt."""
    return torch.arange(rows.tokens.shape[1]) < rows.decision[:, None]
