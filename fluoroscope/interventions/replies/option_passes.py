"""Passes over prompts and options whose probabilities are wanted; nothing is generated.

Axes: rows of a pass, vocab, width of a capture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.interventions.edits import Edit
from fluoroscope.interventions.positions import at
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.term_table import Placed
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.texts import Capture


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
        whole = [tuple(model.tokenizer(prompt + option)["input_ids"]) for option in options]
        before = tuple(model.tokenizer(prompt)["input_ids"]) if prompt else _beginning(model)
        if not prompt and any(text[: len(before)] != before for text in whole):
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


class Ends(NamedTuple):
    """What was read at the last position of each row."""

    logprobs: Float[Tensor, "rows vocab"]
    captured: Mapping[str, Float[Tensor, "rows width"]]


class Options(NamedTuple):
    """What was read of one sample."""

    sums: tuple[float, ...]
    n_tokens: tuple[int, ...]
    preferred: int
    """Place of the option with the largest sum."""

    captured: Mapping[str, Tensor]
    n_edits: int


def read_ends(
    model: LanguageModel, prompts: Sequence[Sequence[int]], captures: Mapping[str, Capture]
) -> Ends:
    """The distribution behind each prompt, with what is active on the model."""
    tokens, mask = _padded(model, prompts)
    last = mask.sum(dim=1) - 1
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), model.hooked(_hooks(captures, last, seen)):
        logits = model.forward(tokens, mask)
    rows = torch.arange(len(last), device=logits.device)
    ends = logits[rows, last.to(logits.device)]
    return Ends(ends.double().log_softmax(dim=-1).cpu(), seen)


def read_options(
    model: LanguageModel,
    texts: Sequence[OptionTexts],
    edits: EditSet,
    captures: Mapping[str, Capture],
) -> list[Options]:
    """The log-probability of every option, edited wherever one of its tokens would be drawn."""
    rows = [(text, option) for text in texts for option in text.options]
    whole = [(*text.prompt, *option) for text, option in rows]
    spans = [
        range(len(text.prompt) - 1, len(w) - 1) for (text, _), w in zip(rows, whole, strict=True)
    ]
    tokens, mask = _padded(model, whole)
    steps: dict[str, list[Tensor]] = {}
    looked = [
        range(s.start, s.stop if t.is_free else s.start + 1)
        for s, (t, _) in zip(spans, rows, strict=True)
    ]
    hooks = _step_hooks(captures, looked, steps)
    with (
        torch.no_grad(),
        row_edits(model, [_placed(edits, span) for span in spans]),
        model.hooked(hooks),
    ):
        scores = model.token_scores(tokens, mask).double().cpu()
    sums = [float(scores[row, span.start : span.stop].sum()) for row, span in enumerate(spans)]
    found: list[Options] = []
    first = 0
    for text in texts:
        mine = range(first, first + len(text.options))
        first = mine.stop
        best = max(mine, key=lambda row: sums[row])
        found.append(
            Options(
                tuple(sums[row] for row in mine),
                tuple(len(option) for option in text.options),
                best - mine.start,
                {name: values[best] for name, values in steps.items()},
                sum(len(spans[row]) for row in mine) * len(edits),
            )
        )
    return found


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


def _padded(
    model: LanguageModel, rows: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "rows pos"], Int[Tensor, "rows pos"]]:
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), model.pad_token_id)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return tokens, mask


def _placed(edits: EditSet, span: range) -> EditSet:
    positions = at(list(span))
    found: dict[HookPoint | str, list[Edit | Placed]] = {}
    for point, given in edits.items():
        several = [given] if isinstance(given, Edit | Placed) else list(given)
        found[point] = [e if isinstance(e, Placed) else Placed(e, positions) for e in several]
    return found


def _hooks(
    captures: Mapping[str, Capture], last: Int[Tensor, " rows"], seen: dict[str, Tensor]
) -> dict[HookPoint, Hook]:
    """One position of each row: whatever the pooling, it is what it is."""

    def see(names: list[str], value: Tensor) -> None:
        rows = torch.arange(len(last), device=value.device)
        ends = value[rows, last.to(value.device)]
        read: dict[int, Tensor] = {}
        for name in names:
            encoder = captures[name].read
            key = id(encoder)
            if key not in read:
                read[key] = ends if encoder is None else encoder(ends)
            seen[name] = read[key]

    return {point: partial(see, names) for point, names in _by_point(captures).items()}


def _step_hooks(
    captures: Mapping[str, Capture], looked: Sequence[range], steps: dict[str, list[Tensor]]
) -> dict[HookPoint, Hook]:
    """Pools each row's positions."""
    lengths = [len(span) for span in looked]
    rows = torch.arange(len(looked)).repeat_interleave(torch.tensor(lengths))
    places = torch.tensor([place for span in looked for place in span])

    def see(names: list[str], value: Tensor) -> None:
        flat = value[rows.to(value.device), places.to(value.device)]
        read: dict[int, Tensor] = {}
        for name in names:
            encoder = captures[name].read
            key = id(encoder)
            if key not in read:
                read[key] = flat if encoder is None else encoder(flat)
            parts = read[key].split(lengths)
            steps[name] = [_pooled(part, captures[name].pool) for part in parts]

    return {point: partial(see, names) for point, names in _by_point(captures).items()}


def _pooled(steps: Float[Tensor, "steps width"], how: str) -> Float[Tensor, " width"]:
    match how:
        case "max":
            return steps.amax(dim=0)
        case "mean":
            return steps.mean(dim=0)
        case _:
            return steps[-1]


def _by_point(captures: Mapping[str, Capture]) -> dict[HookPoint, list[str]]:
    points: dict[HookPoint, list[str]] = {}
    for name, capture in captures.items():
        points.setdefault(capture.point, []).append(name)
    return points
