"""When a row is done: stop tokens, and stop strings in its own generated text.

Text is decoded only after a token that could have completed a stop string, so that looking
for strings costs next to nothing.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class StopRule(NamedTuple):
    """What ends a row, besides its number of tokens."""

    strings: tuple[str, ...]
    """The text ends before the first of these that is generated."""

    tokens: tuple[int, ...]
    """The row ends with this token, which is not part of the text."""


class StopTable:
    """The rules of one generation, by number."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        n_tokens: int,
        rules: Iterable[StopRule],
        device: torch.device,
    ) -> None:
        self._tokenizer, self._n_tokens = tokenizer, n_tokens
        self._numbers = {rule: number for number, rule in enumerate(dict.fromkeys(rules))}
        self.is_stop_token = torch.stack([self._tokens_of(rule) for rule in self._numbers]).to(device)
        self.may_complete = torch.stack([self._completing(rule) for rule in self._numbers]).to(device)

    def number(self, rule: StopRule) -> int:
        return self._numbers[rule]

    def cut(self, rule: StopRule, text: str) -> int | None:
        """Where the text ends because of a stop string; None if it goes on."""
        found = [text.find(string) for string in rule.strings]
        return min((place for place in found if place >= 0), default=None)

    def _tokens_of(self, rule: StopRule) -> Bool[Tensor, " vocab"]:
        found = torch.zeros(self._n_tokens, dtype=torch.bool)
        found[list(rule.tokens)] = True
        return found

    def _completing(self, rule: StopRule) -> Bool[Tensor, " vocab"]:
        found = torch.zeros(self._n_tokens, dtype=torch.bool)
        if not rule.strings:
            return found
        ends = {string[-1] for string in rule.strings}
        for token, piece in enumerate(self._pieces):
            # A token that is no whole character may complete one with those before it.
            found[token] = _BROKEN in piece or not ends.isdisjoint(piece)
        return found

    @cached_property
    def _pieces(self) -> Sequence[str]:
        """What each token adds to a text; a token alone may lose its leading space."""
        n_known = min(self._n_tokens, len(self._tokenizer))
        before = self._tokenizer.decode([0])
        pairs = self._tokenizer.batch_decode([[0, token] for token in range(n_known)])
        # Where the pair does not begin as its first token alone, all of it is looked at.
        return [pair.removeprefix(before) or pair for pair in pairs]


def continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]
) -> str:
    """What `tokens` add to the text of a prompt, to the letter."""
    before = tokenizer.decode(prompt[-1:], clean_up_tokenization_spaces=False)
    both = tokenizer.decode([*prompt[-1:], *tokens], clean_up_tokenization_spaces=False)
    # Alone, tokens may lose a leading space; behind a broken character, they may complete it.
    if both.startswith(before):
        return both[len(before) :]
    return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
