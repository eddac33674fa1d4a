"""Options behind prompts that are read once: few tokens each, which follow on kept keys and values.

Axes: rows, vocab.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.replies.option_texts import OptionTexts
from fluoroscope.interventions.row_edits import EditSet, RowEdits
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass, check_count
from fluoroscope.models.prefill import PIECE, Filled, Job, prefill
from fluoroscope.models.requests import writable_context
from fluoroscope.models.row_cache import Layout, RowCache
from fluoroscope.models.row_reader import RowReader

MOST_STEPS = 3
"""Tokens of an option behind its first, each of which is a pass of its own: more are cheaper read
with their prompts, all in one."""


def can_share(model: LanguageModel, texts: Sequence[OptionTexts]) -> bool:
    """Whether it is worth reading prompts once, and the model keeps keys and values."""
    return can_keep(model, [text.prompt for text in texts], MOST_STEPS) and all(
        not text.is_free and len(text.options) > 1 and max(map(len, text.options)) <= 1 + MOST_STEPS
        for text in texts
    )


def can_keep(model: LanguageModel, prompts: Sequence[Sequence[int]], n_more: int = 0) -> bool:
    """Whether the model keeps the keys and values of such prompts, and of `n_more` tokens each."""
    if model.family.kind != "decoder" or getattr(model.network.config, "alibi", False):
        return False
    return max(map(len, prompts)) <= min(PIECE, writable_context(model) - n_more)


def read_prompts(
    model: LanguageModel, prompts: Sequence[Sequence[int]], hooks: Mapping[HookPoint, Hook]
) -> Float[Tensor, "rows vocab"]:
    """The logits behind each prompt, with what is active on the model, and of no other position;
    in the pass that `hooks` see each prompt ends in the last column.
    """
    with torch.no_grad(), RowReader(model).open() as reader:
        return _read_prompts(reader, prompts, hooks).logits


def _read_prompts(
    reader: RowReader, prompts: Sequence[Sequence[int]], hooks: Mapping[HookPoint, Hook]
) -> Filled:
    model = reader.model
    jobs = [Job(i, tuple(prompt), 0, len(prompt)) for i, prompt in enumerate(prompts)]
    with model.hooked(hooks):
        filled = prefill(reader, jobs)
    for job, n_edits in zip(jobs, filled.fired.tolist(), strict=True):
        check_count(model.interventions, job.request, job.prompt, job.stop, n_edits)
    return filled


def read_behind(
    model: LanguageModel,
    texts: Sequence[OptionTexts],
    edits: EditSet,
    hooks: Mapping[HookPoint, Hook],
) -> list[list[float]]:
    """The log-probability (nats) of every option; `hooks` see the pass over the prompts, whose last
    column is each prompt's end.
    """
    active = RowEdits(model, [edits], LAST | GENERATED, is_for_all=True)
    with torch.no_grad(), model.intervened(active), RowReader(model).open() as reader:
        filled = _read_prompts(reader, [text.prompt for text in texts], hooks)
        behind = filled.logits.double().log_softmax(dim=-1)
        sums = [[float(behind[i, o[0]]) for o in text.options] for i, text in enumerate(texts)]
        rows = [
            _Row(i, place, text.prompt, option)
            for i, text in enumerate(texts)
            for place, option in enumerate(text.options)
            if len(option) > 1
        ]
        # The longest first, so that those that go on are always the first rows.
        rows.sort(key=lambda row: -len(row.option))
        if rows:
            _read_on(reader, rows, filled, sums)
    return sums


class _Row(NamedTuple):
    """An option of several tokens."""

    text: int
    place: int
    prompt: tuple[int, ...]
    option: tuple[int, ...]


def _read_on(
    reader: RowReader, rows: Sequence[_Row], filled: Filled, sums: list[list[float]]
) -> None:
    """Adds to `sums` the tokens behind each option's first."""
    device = reader.model.device
    longest = max(len(row.prompt) for row in rows)
    cache = RowCache(len(rows), longest + MOST_STEPS)
    texts = torch.tensor([row.text for row in rows], device=device)
    cache.copy_from(filled.cache, texts, torch.arange(len(rows), device=device), longest)
    fired = filled.fired[texts]
    for step in range(len(rows[0].option) - 1):
        going = [row for row in rows if len(row.option) > step + 1]
        logits, new = _step(reader, going, step, cache)
        fired[: len(going)] += new
        logprobs = logits.double().log_softmax(dim=-1)
        for number, row in enumerate(going):
            sums[row.text][row.place] += float(logprobs[number, row.option[step + 1]])
    for row, n_edits in zip(rows, fired.tolist(), strict=True):
        n = len(row.prompt) + len(row.option) - 1
        check_count(reader.model.interventions, row.text, row.prompt, n, n_edits)


def _step(
    reader: RowReader, rows: Sequence[_Row], step: int, cache: RowCache
) -> tuple[Float[Tensor, "rows vocab"], Int[Tensor, " rows"]]:
    """Reads token `step` of every option; gives the logits behind it, and the edits by row."""
    device = reader.model.device
    own = torch.tensor([[len(row.prompt) + step] for row in rows], device=device)
    layout = Layout(
        own=own,
        columns=own,
        width=int(own.max()) + 1,
        positions=own,
        starts=torch.zeros(len(rows), dtype=torch.int64, device=device),
        groups=[],
    )
    a_pass = Pass(
        requests=tuple(row.text for row in rows),
        prompts=tuple(row.prompt for row in rows),
        positions=own,
        fired=torch.zeros(len(rows), dtype=torch.int64, device=device),
        is_decoding=True,
    )
    tokens = torch.tensor([[row.option[step]] for row in rows], device=device)
    return reader.read(tokens, cache, layout, a_pass), a_pass.fired
