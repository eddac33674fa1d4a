"""Prompts and what may follow them, as tokens, and what was read of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.models.language_model import LanguageModel


@dataclass(frozen=True)
class OptionTexts:
    """A prompt and what may follow it, as tokens."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    is_free: bool
    """Whether there is no prompt, but what begins every text."""

    @classmethod
    def of(cls, model: LanguageModel, prompt: str, options: Sequence[str]) -> "OptionTexts":
        """A token that joins the prompt's end and an option's beginning is counted to the option,
        and so is what stands in the other options at that place.
        """
        return cls.of_all(model, [(prompt, options)])[0]

    @classmethod
    def of_all(
        cls, model: LanguageModel, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> "list[OptionTexts]":
        """Of each prompt with its options; all at once, as tokenizers are faster so."""
        texts = [prompt + option for prompt, options in asked for option in options]
        prompts = [prompt for prompt, _ in asked]
        tokens = iter(model.tokenizer([*prompts, *texts])["input_ids"]) if asked else iter(())
        before = [tuple(next(tokens)) for _ in prompts]
        return [
            cls._of_tokens(model, prompt, options, own, [tuple(next(tokens)) for _ in options])
            for (prompt, options), own in zip(asked, before, strict=True)
        ]

    @classmethod
    def _of_tokens(
        cls,
        model: LanguageModel,
        prompt: str,
        options: Sequence[str],
        before: tuple[int, ...],
        whole: list[tuple[int, ...]],
    ) -> "OptionTexts":
        if not prompt:
            before = _beginning(model)
            if any(text[: len(before)] != before for text in whole):
                whole = [(*before, *text) for text in whole]
        n = min(_n_shared(before, text) for text in whole)
        empty = next((o for o, text in zip(options, whole, strict=True) if len(text) <= n), None)
        if n == 0 or empty is not None:
            what = "nothing that they share" if n == 0 else f"no token for the option {empty!r}"
            raise ConfigError(
                f"The prompt {prompt[-60:]!r} and its options have {what} in the tokenizer of "
                f"{model.name}: there is no probability to compare."
            )
        return cls(whole[0][:n], tuple(text[n:] for text in whole), not prompt)

    @property
    def n_tokens(self) -> int:
        """Of the widest row, for each of its options."""
        return (len(self.prompt) + max(map(len, self.options))) * len(self.options)


class Options(NamedTuple):
    """What was read of one sample."""

    sums: tuple[float, ...]
    n_tokens: tuple[int, ...]
    preferred: int
    """Place of the option with the largest sum."""

    captured: Mapping[str, Tensor]
    n_edits: int


def _beginning(model: LanguageModel) -> tuple[int, ...]:
    """What every text of a model begins with."""
    own = tuple(model.tokenizer("")["input_ids"])
    if own:
        return own
    if model.bos_token_id is None:
        raise ConfigError(
            f"{model.name} has no token that begins a text, so that the first token of a sentence "
            "has no probability; take a task whose samples have a prompt."
        )
    return (model.bos_token_id,)


def _n_shared(before: Sequence[int], text: Sequence[int]) -> int:
    n = 0
    while n < min(len(before), len(text)) and before[n] == text[n]:
        n += 1
    return n
