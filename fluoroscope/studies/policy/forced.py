"""Given texts read again with given actions: what the next token would have been.

Axes: readings, vocab.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import check_count
from fluoroscope.models.prefill import Job, batches, prefill, shortened, token_budget
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.models.row_reader import RowReader
from fluoroscope.models.texts import Generation, Request
from fluoroscope.studies.policy.acting import Replay
from fluoroscope.studies.policy.action_log import ActionLog, Place
from fluoroscope.studies.policy.candidates import NO_OP, Candidates


class Reading(NamedTuple):
    """A text up to a token that is asked for."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    """What was written behind the prompt."""

    actions: tuple[int, ...]
    """One for each token of `tokens`, and one for the token that is asked for."""


def next_logits(
    model: LanguageModel, candidates: Candidates, readings: Sequence[Reading]
) -> Iterator[tuple[list[int], Float[Tensor, "some vocab"]]]:
    """Numbers of readings, and the logits behind them; many at a time, each read once."""
    if model.interventions:
        raise InterventionError(
            "The model is being edited by something else than the actions that are replayed. Leave "
            "the `with` block first."
        )
    for number, one in enumerate(readings):
        if len(one.actions) != len(one.tokens) + 1:
            raise InterventionError(
                f"Reading {number} has {len(one.tokens)} tokens and {len(one.actions)} actions; "
                "there is one more action than tokens."
            )
    order = sorted(range(len(readings)), key=lambda i: len(readings[i].tokens))
    texts = [(*one.prompt, *one.tokens) for one in readings]
    scripts = [one.actions for one in readings]
    replay = Replay(model, candidates, scripts, [len(one.prompt) - 1 for one in readings])
    reader = RowReader(model)
    budget = token_budget(model.device)
    for part in batches([len(texts[i]) for i in order], budget):
        with torch.no_grad(), reader.open(), model.intervened(replay):
            begun = [shortened(reader, Job(i, texts[i], 0, len(texts[i]))) for i in order[part]]
            filled = prefill(reader, [job for job, _ in begun])
        fired = filled.fired.tolist()
        for i, (_, earlier), n_edits in zip(order[part], begun, fired, strict=True):
            check_count([replay], i, texts[i], len(texts[i]), earlier + n_edits)
        yield order[part], filled.logits


def token_logits(
    model: LanguageModel,
    log: ActionLog,
    requests: Sequence[Request],
    generations: Sequence[Generation],
    places: Sequence[Place],
) -> Mapping[Place, tuple[float, float]]:
    """The logit of the token that was drawn, without the action at its own position (those before
    it stay) and with it. Every place takes two readings of its text up to there.
    """
    scripts = log.scripts(len(requests))
    readings = []
    for request, t in places:
        prompt = prompt_tokens(model, requests[request].prompt)
        tokens, past = generations[request].tokens[:t], scripts[request][:t]
        for action in (NO_OP, scripts[request][t]):
            readings.append(Reading(prompt, tokens, (*past, action)))
    found = [0.0] * len(readings)
    for numbers, logits in next_logits(model, log.candidates, readings):
        for number, row in zip(numbers, logits, strict=True):
            request, t = places[number // 2]
            found[number] = float(row[generations[request].tokens[t]])
    return {place: (found[2 * i], found[2 * i + 1]) for i, place in enumerate(places)}
