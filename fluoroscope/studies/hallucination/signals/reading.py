"""One pass over prompt and completion -> all that the model shows while it gives the answer.

Read are the positions that draw a token of the completion, and its last: the last token of the
prompt, where it is decided whether there is anything to say, and all tokens of the answer.

Axes: n answers, t tokens of all completions, p positions of all answers (t + n), 3 places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.activations.tiles import length_tiles
from fluoroscope.core.errors import NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.reconstruction import reconstruction_of
from fluoroscope.sae.sparse_kernels import SparseLatents
from fluoroscope.studies.hallucination.signals.tokens import AnswerTokens

PLACES = ("last", "exact", "mean")
"""Where states are kept: the last token, the last of the answer itself, the mean of all."""

TILE_TOKENS = 2048
"""Tokens that go through at once, padding among them; the logits of all of them are in memory."""


@dataclass(frozen=True)
class Readings:
    """Of n answers, in their order; all on the CPU."""

    offsets: Int[Tensor, " n_offsets"]
    """Tokens of answer i are `offsets[i]` to `offsets[i + 1]`; its positions have one more, so
    they are `offsets[i] + i` to `offsets[i + 1] + i + 1`."""

    logprobs: Float[Tensor, " t"]
    """Log-probability (nats) of each token of a completion."""

    entropies: Float[Tensor, " t"]
    """Entropy (nats) of the distribution that each was drawn from."""

    states: Mapping[HookPoint, Float[Tensor, "n 3 d_model"]]
    """At the `PLACES` of each answer."""

    latents: Mapping[HookPoint, SparseLatents]
    """Active latents at each position."""

    unexplained: Mapping[HookPoint, Float[Tensor, "p 2"]]
    """At each position the squared error of the reconstruction, and the squared distance of the
    state from `b_dec`, which the error would be without any latent."""


@torch.no_grad()
def read_answers(
    model: LanguageModel,
    answers: Sequence[AnswerTokens],
    saes: Mapping[HookPoint, SparseAutoencoder],
    tile_tokens: int = TILE_TOKENS,
    on_tile: Callable[[int, int], None] | None = None,
) -> Readings:
    """Everything in one pass a tile; `on_tile` gets how many answers are done, and of how many.

    Raises `NumericsError` where the model gives a NaN or an infinity.
    """
    parts: dict[int, _Part] = {}
    for rows in length_tiles([len(one.tokens) for one in answers], tile_tokens):
        found = _read_tile(model, [answers[row] for row in rows], saes)
        parts |= dict(zip(rows, found, strict=True))
        if on_tile is not None:
            on_tile(len(parts), len(answers))
    order = [parts[i] for i in range(len(answers))]
    counts = torch.tensor([0, *(len(part.logprobs) for part in order)])
    return Readings(
        offsets=counts.cumsum(0),
        logprobs=_joined([part.logprobs for part in order]),
        entropies=_joined([part.entropies for part in order]),
        states={
            point: torch.stack([part.states[point] for part in order])
            if order
            else torch.zeros(0, len(PLACES), model.width(point))
            for point in saes
        },
        latents={
            point: _stacked([part.latents[point] for part in order], sae.d_sae)
            for point, sae in saes.items()
        },
        unexplained={
            point: torch.cat([torch.zeros(0, 2), *(part.unexplained[point] for part in order)])
            for point in saes
        },
    )


@dataclass(frozen=True)
class _Part:
    """Of one answer."""

    logprobs: Tensor
    entropies: Tensor
    states: dict[HookPoint, Tensor]
    latents: dict[HookPoint, SparseLatents]
    unexplained: dict[HookPoint, Tensor]


def _read_tile(
    model: LanguageModel,
    answers: Sequence[AnswerTokens],
    saes: Mapping[HookPoint, SparseAutoencoder],
) -> list[_Part]:
    width = max(len(one.tokens) for one in answers)
    ids = torch.zeros(len(answers), width, dtype=torch.int64)
    mask: Int[Tensor, "rows width"] = torch.zeros_like(ids)
    for row, one in enumerate(answers):
        ids[row, : len(one.tokens)] = torch.tensor(one.tokens)
        mask[row, : len(one.tokens)] = 1
    rows = torch.tensor([row for row, one in enumerate(answers) for _ in one.positions])
    places = torch.tensor([place for one in answers for place in one.positions])
    seen: dict[HookPoint, Tensor] = {}

    def keep(point: HookPoint, value: Tensor) -> None:
        kept = value[rows.to(value.device), places.to(value.device)]
        seen[point] = kept.to(torch.promote_types(kept.dtype, torch.float32))

    hooks = {point: lambda value, p=point: keep(p, value) for point in saes}
    with model.hooked(hooks):
        logits = model.forward(ids.to(model.device), mask.to(model.device))
    scores = logits[rows.to(logits.device), places.to(logits.device)]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(dim=-1)
    _check(scores, seen)
    entropies = -(scores.exp() * scores).sum(dim=-1)
    encoded = {point: _encoded(saes[point], values) for point, values in seen.items()}
    on_cpu = {point: values.cpu() for point, values in seen.items()}
    found, start = [], 0
    for one in answers:
        stop = start + len(one.positions)
        drawn = torch.tensor(one.tokens[one.n_prompt :], device=scores.device)
        mine = scores[start : stop - 1]
        exact = start + one.exact - one.positions.start
        found.append(
            _Part(
                logprobs=mine.gather(1, drawn[:, None])[:, 0].cpu(),
                entropies=entropies[start : stop - 1].cpu(),
                states={
                    point: torch.stack(
                        [values[stop - 1], values[exact], values[start + 1 : stop].mean(dim=0)]
                    )
                    for point, values in on_cpu.items()
                },
                latents={point: _some(all_, start, stop) for point, (all_, _) in encoded.items()},
                unexplained={point: rows[start:stop] for point, (_, rows) in encoded.items()},
            )
        )
        start = stop
    return found


def _check(scores: Float[Tensor, "p vocab"], seen: Mapping[HookPoint, Tensor]) -> None:
    bad = [str(point) for point, values in seen.items() if not bool(values.isfinite().all())]
    if bad or bool(scores.isnan().any()):
        raise NumericsError(
            f"The activations at {bad[0] if bad else 'the logits'} are not finite while an answer "
            "is read; load the model in float32 or bfloat16."
        )


def _encoded(
    sae: SparseAutoencoder, values: Float[Tensor, "p d_model"]
) -> tuple[SparseLatents, Float[Tensor, "p 2"]]:
    states = values.to(sae.W_dec)
    latents = sae.sparse_encode(states)
    error = (states - reconstruction_of(sae, states, latents)).square().sum(dim=-1)
    distance = (sae.part_read(states) - sae.b_dec).square().sum(dim=-1)
    return _on_cpu(latents), torch.stack([error, distance], dim=-1).float().cpu()


def _on_cpu(latents: SparseLatents) -> SparseLatents:
    return SparseLatents(
        latents.offsets.cpu(), latents.indices.cpu(), latents.values.float().cpu(), latents.d_sae
    )


def _some(latents: SparseLatents, start: int, stop: int) -> SparseLatents:
    offsets = latents.offsets[start : stop + 1]
    mine = slice(int(offsets[0]), int(offsets[-1]))
    indices, values = latents.indices[mine].clone(), latents.values[mine].clone()
    return SparseLatents(offsets - offsets[0], indices, values, latents.d_sae)


def _stacked(parts: Sequence[SparseLatents], d_sae: int) -> SparseLatents:
    counts = [part.offsets.diff() for part in parts]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), *counts]).cumsum(0)
    indices = torch.cat([torch.zeros(0, dtype=torch.int32), *(part.indices for part in parts)])
    return SparseLatents(offsets, indices, _joined([part.values for part in parts]), d_sae)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0), *parts])
