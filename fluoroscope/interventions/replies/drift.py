"""How far edits move a model's next-token predictions on texts that they are not meant for.

    KL(unsteered || steered)      in nats, averaged over positions that predict a token
    perplexity ratio              exp(mean -log p steered) / exp(mean -log p unsteered)

Both come from one pass with the edits and one without, over the same windows of tokens; what
is active around the call acts in both.

Axes: `vocab` tokens, `pos` positions, `units` groups of texts, `sums` what is summed over them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError, InterventionError, ModelError, NumericsError
from fluoroscope.core.intervals import Interval, jackknife_intervals
from fluoroscope.interventions.answers import check_tokens
from fluoroscope.interventions.positions import ALL, Positions
from fluoroscope.interventions.replies.comparing import group_numbers
from fluoroscope.interventions.replies.quality import exp_interval
from fluoroscope.interventions.row_edits import EditSet, RowEdits
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.prefill import batches, token_budget

_LOGITS = 2**28
"""Logits of one pass at most, 1 GiB in float32."""

_POSITIONS = 256
"""Positions whose distributions are held in float64 at once."""

After = Callable[[Sequence[int], Tensor, Tensor], Tensor]
"""Logits of a batch after what is done to the model: places of the texts, tokens, mask."""


class Drift(NamedTuple):
    """With 95 % intervals over groups of texts; no ends of fewer than 10 groups."""

    kl: Interval
    """Nats, of the unsteered distribution from the steered one."""

    perplexity_ratio: Interval
    """Above 1 where the edits make the texts less likely."""

    perplexity: Interval
    """Of the unsteered model."""

    perplexity_steered: Interval

    n_texts: int
    n_positions: int
    n_edits: int


class _Window(NamedTuple):
    text: int
    tokens: tuple[int, ...]


def drift(
    model: LanguageModel,
    texts: Sequence[str | Sequence[int]],
    edits: EditSet,
    positions: Positions = ALL,
    *,
    groups: Sequence[str] | None = None,
    max_tokens: int | None = None,
) -> Drift:
    """Texts, or windows of tokens that are taken as they are; longer ones than the model reads are
    cut into windows, to each of which `positions` apply.

    A text is a prompt here: `LAST | GENERATED` would edit its last position alone, which predicts
    nothing, and is refused. `ALL` edits as if the model were writing it. `groups` say which texts
    are alike, by default none; `max_tokens` is what one pass reads, padding included.
    """
    windows = _windows(model, texts)
    active = RowEdits(model, [edits], positions, is_for_all=True)
    _check_reached(active, windows, edits, positions)

    def edited(_places: Sequence[int], tokens: Tensor, mask: Tensor) -> Tensor:
        with model.intervened(active):
            return model.forward(tokens, mask)

    sums = text_sums(model, texts, edited, max_tokens=max_tokens)
    return drift_of(sums, groups)._replace(n_edits=int(active.n_applied))


def text_sums(
    model: LanguageModel,
    texts: Sequence[str | Sequence[int]],
    after: After,
    *,
    max_tokens: int | None = None,
) -> Float[np.ndarray, "texts 4"]:
    """Of each text the summed KL, the sums of -log p of the model and of `after`, and how many
    positions predict a token; `after` may be another model, or edits that differ by text.
    """
    windows = _windows(model, texts)
    budget = max_tokens or min(token_budget(model.device), max(1, _LOGITS // model.vocab_size))
    totals = np.zeros((len(texts), 4))
    # Windows of one length go together, so that there is little padding.
    order = sorted(windows, key=lambda window: -len(window.tokens))
    for part in batches([len(window.tokens) for window in order], budget):
        places = [window.text for window in order[part]]
        sums = _of_batch(model, after, places, [window.tokens for window in order[part]])
        np.add.at(totals, places, sums)
    if not np.isfinite(totals).all():
        raise NumericsError(
            "A prediction of the model is not finite, with the edits or without; a weaker edit, "
            "or dtype=float32, may help."
        )
    return totals


def drift_of(sums: Float[np.ndarray, "texts 4"], groups: Sequence[str] | None = None) -> Drift:
    """Of what `text_sums` gives; edits are not counted."""
    names = [str(number) for number in range(len(sums))] if groups is None else groups
    if len(names) != len(sums):
        raise ConfigError(f"Every text needs a group, got {len(names)} for {len(sums)} texts.")
    unit = group_numbers(names)
    totals = np.zeros((unit.max() + 1, 4))
    np.add.at(totals, unit, sums)
    found = jackknife_intervals(_means, totals[totals[:, 3] > 0])
    return Drift(
        kl=found[0],
        perplexity_ratio=exp_interval(found[1]),
        perplexity=exp_interval(found[2]),
        perplexity_steered=exp_interval(found[3]),
        n_texts=int((sums[:, 3] > 0).sum()),
        n_positions=int(sums[:, 3].sum()),
        n_edits=0,
    )


def _means(totals: Float[np.ndarray, "draws 4"]) -> Float[np.ndarray, "draws 4"]:
    """KL, log of the ratio, and both log-perplexities, from sums and the number of positions."""
    kl, before, after = (totals[:, :3] / totals[:, 3:]).T
    return np.stack([kl, after - before, before, after], axis=1)


def _of_batch(
    model: LanguageModel, after: After, places: Sequence[int], rows: Sequence[tuple[int, ...]]
) -> Float[np.ndarray, "rows 4"]:
    """Of each row the summed KL, both sums of -log p, and the positions that predict a token."""
    tokens = torch.full((len(rows), max(map(len, rows))), model.pad_token_id)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    with torch.no_grad():
        before = model.forward(tokens, mask)
        moved = after(places, tokens, mask)
        sums = [
            _of_row(before[place, : len(row) - 1], moved[place, : len(row) - 1], row[1:])
            for place, row in enumerate(rows)
        ]
    return np.array([[*found, len(row) - 1] for found, row in zip(sums, rows, strict=True)])


def _of_row(
    before: Float[Tensor, "pos vocab"], after: Float[Tensor, "pos vocab"], following: Sequence[int]
) -> list[float]:
    targets = torch.tensor(following, device=before.device)[:, None]
    total = torch.zeros(3, dtype=torch.float64, device=before.device)
    for start in range(0, len(targets), _POSITIONS):
        part = slice(start, start + _POSITIONS)
        log_p, log_q = (logits[part].double().log_softmax(-1) for logits in (before, after))
        p = log_p.exp()
        # Where p is 0 both may be -inf, and nothing is expected of it.
        kl = torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)
        # Rounding leaves that of equal distributions a little below 0.
        total[0] += kl.clamp(min=0).sum()
        total[1] -= log_p.gather(-1, targets[part]).sum()
        total[2] -= log_q.gather(-1, targets[part]).sum()
    return total.tolist()


def _windows(model: LanguageModel, texts: Sequence[str | Sequence[int]]) -> list[_Window]:
    if model.family.kind != "decoder":
        raise ModelError(f"{model.name} is an encoder: it does not predict next tokens.")
    if isinstance(texts, str) or not texts:
        raise ConfigError(f"Give a list of texts, one at least; got {texts!r}.")
    found = [window for number, text in enumerate(texts) for window in _cut(model, number, text)]
    if not found:
        raise ConfigError(
            "No text has two tokens, so there is nothing to predict; give longer texts."
        )
    return found


def _cut(model: LanguageModel, number: int, text: str | Sequence[int]) -> Iterator[_Window]:
    if isinstance(text, str):
        tokens = list(model.tokenizer(text)["input_ids"])
    else:
        tokens = [int(token) for token in text]
        check_tokens(model, tokens, f"Window {number}")
    for start in range(0, len(tokens), model.context_length):
        part = tuple(tokens[start : start + model.context_length])
        if len(part) > 1:
            yield _Window(number, part)


def _check_reached(
    active: RowEdits, windows: Sequence[_Window], edits: EditSet, positions: Positions
) -> None:
    """Edits that no prediction sees would be a drift of 0 by construction."""
    reached = (active.expected(0, window.tokens, len(window.tokens) - 1) for window in windows)
    if edits and not any(reached):
        raise InterventionError(
            f"At {positions} no position of these texts that predicts a token is edited. In a pass "
            "over whole texts the text is the prompt: take ALL, which edits as if the model were "
            "writing it."
        )
