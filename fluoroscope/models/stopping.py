"""When a row is done: stop tokens, and stop strings in its own generated text.

Text is decoded only after a token that could have completed a stop string, so that looking
for strings costs next to nothing.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What stands in a text where tokens end, or begin, inside a character."""

_CHARACTER_BYTES = 4


class StopRule(NamedTuple):
    """What ends a row, besides its number of tokens."""

    strings: tuple[str, ...]
    """The text ends before the first of these that is generated."""

    tokens: tuple[int, ...]
    """The row ends with this token, which is not part of the text."""


class StopTable:
    """The rules of one generation, by number; those that look alike at a token have one number."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        n_tokens: int,
        rules: Iterable[StopRule],
        device: torch.device,
    ) -> None:
        looks = list(dict.fromkeys(map(_look, rules)))
        self._numbers = {look: number for number, look in enumerate(looks)}
        is_stop = torch.zeros(len(looks), n_tokens, dtype=torch.bool)
        for row, (_, stops) in zip(is_stop, looks, strict=True):
            row[list(stops)] = True
        self.is_stop_token = is_stop.to(device)
        completing = [_completing(tokenizer, n_tokens, ends) for ends, _ in looks]
        self.may_complete = torch.stack(completing).to(device)

    def number(self, rule: StopRule) -> int:
        return self._numbers[_look(rule)]

    def cut(self, rule: StopRule, text: str) -> int | None:
        """Where the text ends because of a stop string; None if it goes on."""
        found = [text.find(string) for string in rule.strings]
        return min((place for place in found if place >= 0), default=None)


_Look = tuple[frozenset[str], tuple[int, ...]]


def _look(rule: StopRule) -> _Look:
    """All that a single token can tell of a rule: its strings' last characters, and its tokens."""
    return frozenset(string[-1] for string in rule.strings), rule.tokens


@lru_cache(maxsize=64)
def _completing(
    tokenizer: PreTrainedTokenizerBase, n_tokens: int, ends: frozenset[str]
) -> Bool[Tensor, " vocab"]:
    """Which tokens may complete a string that ends with one of these characters."""
    found = torch.zeros(n_tokens, dtype=torch.bool)
    if not ends:
        return found
    for token, piece in enumerate(_pieces(tokenizer, n_tokens)):
        # A token that is no whole character may complete one with those before it.
        found[token] = _BROKEN in piece or not ends.isdisjoint(piece)
    return found


@lru_cache(maxsize=4)
def _pieces(tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> Sequence[str]:
    """What each token adds to a text, for those that the tokenizer knows."""
    known = sorted(token for token in tokenizer.get_vocab().values() if token < n_tokens)
    # A token alone may lose its leading space, so that it is looked at behind another.
    first = next((token for token in known if _decode(tokenizer, [token]).strip(_BROKEN)), known[0])
    before = _decode(tokenizer, [first])
    pieces = [""] * n_tokens
    for token in known:
        pair = _decode(tokenizer, [first, token])
        # Where the pair does not begin as its first token alone, all of it is looked at.
        pieces[token] = pair.removeprefix(before) or pair
    return pieces


def continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]
) -> str:
    """What `tokens` add to the text of a prompt, to the letter."""
    # Alone, tokens may lose a leading space; behind half a character, they may be misread.
    for n in range(1, min(_CHARACTER_BYTES, len(prompt)) + 1):
        before = _decode(tokenizer, prompt[-n:])
        both = _decode(tokenizer, [*prompt[-n:], *tokens])
        if _BROKEN not in before and both.startswith(before):
            return both[len(before) :]
    return _decode(tokenizer, tokens)


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    found = tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
    assert isinstance(found, str)
    return found
