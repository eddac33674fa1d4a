"""Passes over prompts and options whose probabilities are wanted; nothing is generated.

Axes: rows of a pass, vocab, width of a capture.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.interventions.edits import Edit
from fluoroscope.interventions.positions import at
from fluoroscope.interventions.replies.option_texts import Options, OptionTexts
from fluoroscope.interventions.replies.shared_prompts import (
    can_keep,
    can_share,
    read_behind,
    read_prompts,
)
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.term_table import Placed
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.pooled import names_by_point, read_once
from fluoroscope.models.texts import Capture


class Ends(NamedTuple):
    """What was read at the last position of each row."""

    logprobs: Float[Tensor, "rows vocab"]
    captured: Mapping[str, Float[Tensor, "rows width"]]


def read_ends(
    model: LanguageModel, prompts: Sequence[Sequence[int]], captures: Mapping[str, Capture]
) -> Ends:
    """The distribution behind each prompt, with what is active on the model."""
    seen: dict[str, Tensor] = {}
    if can_keep(model, prompts):
        logits = read_prompts(model, prompts, _hooks(captures, None, seen))
        return Ends(logits.double().log_softmax(dim=-1).cpu(), seen)
    tokens, mask = _padded(model, prompts)
    last = mask.sum(dim=1) - 1
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
    if can_share(model, texts):
        seen: dict[str, Tensor] = {}
        scores = read_behind(model, texts, edits, _hooks(captures, None, seen))
        steps = {name: list(rows) for name, rows in seen.items()}
        return [
            _found(text, sums, {name: rows[place] for name, rows in steps.items()}, edits)
            for place, (text, sums) in enumerate(zip(texts, scores, strict=True))
        ]
    scores, steps = _read_whole(model, texts, edits, captures)
    found, first = [], 0
    for text in texts:
        sums = scores[first : first + len(text.options)]
        preferred = first + sums.index(max(sums))
        captured = {name: values[preferred] for name, values in steps.items()}
        found.append(_found(text, sums, captured, edits))
        first += len(text.options)
    return found


def _found(
    text: OptionTexts, sums: Sequence[float], captured: Mapping[str, Tensor], edits: EditSet
) -> Options:
    lengths = tuple(map(len, text.options))
    best = sums.index(max(sums))
    return Options(tuple(sums), lengths, best, captured, sum(lengths) * len(edits))


def _read_whole(
    model: LanguageModel,
    texts: Sequence[OptionTexts],
    edits: EditSet,
    captures: Mapping[str, Capture],
) -> tuple[list[float], dict[str, list[Tensor]]]:
    """A row for each option: its sum, and what was captured of it."""
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
    return sums, steps


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
    captures: Mapping[str, Capture], last: Int[Tensor, " rows"] | None, seen: dict[str, Tensor]
) -> dict[HookPoint, Hook]:
    """One position of each row, the last column if not said: whatever the pooling, it is what it
    is.
    """

    def see(names: list[str], value: Tensor) -> None:
        rows = torch.arange(len(value), device=value.device)
        # A copy, which does not hold on to the whole pass.
        ends = value[:, -1].clone() if last is None else value[rows, last.to(value.device)]
        seen.update(read_once({name: captures[name] for name in names}, ends))

    return {point: partial(see, names) for point, names in names_by_point(captures).items()}


def _step_hooks(
    captures: Mapping[str, Capture], looked: Sequence[range], steps: dict[str, list[Tensor]]
) -> dict[HookPoint, Hook]:
    """Pools each row's positions."""
    lengths = [len(span) for span in looked]
    rows = torch.arange(len(looked)).repeat_interleave(torch.tensor(lengths))
    places = torch.tensor([place for span in looked for place in span])

    def see(names: list[str], value: Tensor) -> None:
        flat = value[rows.to(value.device), places.to(value.device)]
        for name, found in read_once({name: captures[name] for name in names}, flat).items():
            steps[name] = [_pooled(part, captures[name].pool) for part in found.split(lengths)]

    return {point: partial(see, names) for point, names in names_by_point(captures).items()}


def _pooled(steps: Float[Tensor, "steps width"], how: str) -> Float[Tensor, " width"]:
    match how:
        case "max":
            return steps.amax(dim=0)
        case "mean":
            return steps.mean(dim=0)
        case _:
            return steps[-1]
