"""The decision that a model would make if it ended at a layer (logit lens, nostalgebraist 2020).

The residual stream behind a block goes through the final norm and the head as if it were that of
the last block. At the last layer this is no approximation but the model's own distribution; before
it, it is what would be said, and layers may hold the decision in a form that the head does
not read: a probe that finds it where the lens does not is no contradiction.

Axes: `n` decisions, `rows`, `layers`, vocab.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.intervals import clustered_mean_interval
from fluoroscope.interventions.answers import answer_tokens
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.skipped_blocks import BlockOutputs
from fluoroscope.studies.gambling.decision_screen import OUTCOMES, Situation, stop_share
from fluoroscope.studies.gambling.pathway_probes import auroc_interval

_MAX_NUMBERS = 2**25
"""Logits that are held at once."""

_MEANS = ("p_stop", "p_bet", "stop_share", "legible")
LENS = pl.Schema({
    "layer": pl.Int64, "coming": pl.String, "decisions": pl.Int64, "games": pl.Int64,
    **{f"{name}{end}": pl.Float64 for name in _MEANS for end in ("", "_low", "_high")},
    "auroc": pl.Float64, "auroc_low": pl.Float64, "auroc_high": pl.Float64,
})  # fmt: skip


class Lens:
    """The end of a network: whatever follows its blocks, in any family."""

    @torch.no_grad()
    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._last = HookPoint(model.n_layers - 1, "resid_post")
        self._outputs = BlockOutputs(model)
        with self._outputs.recording():
            model.forward(self._tokens(1))

    @torch.no_grad()
    def logits(self, residual: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        """Of the next token, from `resid_post` of any layer at the last position."""
        given = residual.to(self._model.device, self._model.dtype)[:, None]
        with (
            self._outputs.skipping(self._model.n_layers, len(residual)),
            self._model.hooked({self._last: lambda _: given}),
        ):
            return self._model.forward(self._tokens(len(residual)))[:, 0]

    def decisions(
        self,
        residual: Float[Tensor, "rows d_model"],
        openings: Sequence["Openings"],
        sampling: Sampling,
    ) -> Float[Tensor, "rows 2"]:
        """Probability that the next token opens a decision to stop, and one to bet."""
        found = torch.zeros(len(residual), len(OUTCOMES), dtype=torch.float64)
        for kind in sorted(set(openings)):
            mine = torch.tensor([i for i, one in enumerate(openings) if one == kind])
            inside = torch.zeros(self._model.vocab_size, len(OUTCOMES), dtype=torch.float64)
            for column, tokens in enumerate(kind):
                inside[list(tokens), column] = 1
            for part in mine.split(max(1, _MAX_NUMBERS // self._model.vocab_size)):
                logits = self.logits(residual[part.to(residual.device)])
                shares = sampling.probabilities_of(logits, inside.to(logits.device))
                found[part] = shares.cpu()
        return found

    def _tokens(self, n_rows: int) -> Int[Tensor, "rows 1"]:
        # What is read does not matter: no block sees it.
        return torch.full((n_rows, 1), self._model.bos_token_id or 0)


class Openings(NamedTuple):
    """Tokens that a decision behind a prompt begins with."""

    stop: tuple[int, ...]
    bet: tuple[int, ...]

    @property
    def is_told_at_once(self) -> bool:
        """Whether the first token says which it is."""
        return not set(self.stop) & set(self.bet)


def first_tokens(model: LanguageModel, situation: Situation) -> Openings:
    """Of the openings of a situation."""
    prompt = situation.prompt

    def first(text: str) -> int:
        if isinstance(prompt, str):
            return answer_tokens(model, prompt, text)[0]
        return int(model.tokenizer(text, add_special_tokens=False)["input_ids"][0])

    return Openings(
        *(tuple(sorted({first(text) for text in situation.openings[name]})) for name in OUTCOMES)
    )


def lens_table(
    shares: Float[np.ndarray, "layers n 2"],
    is_stop: Bool[np.ndarray, " n"],
    game: Int[np.ndarray, " n"],
    seed: int,
) -> pl.DataFrame:
    """For each layer, over all decisions and by the one that came: means of P(stop), P(bet), the
    share of stopping among both, and what both have together (`legible`), with 95 % intervals over
    games; and, over all, the AUROC of the share, which at the last layer is the best there can be.
    """
    kinds = {"stop": is_stop, "bet": ~is_stop, "all": np.ones(len(is_stop), bool)}
    rows: list[dict[str, object]] = []
    for layer, of_layer in enumerate(shares):
        share = stop_share(torch.from_numpy(of_layer)).numpy()
        columns = dict(zip(_MEANS, (*of_layer.T, share, of_layer.sum(axis=1)), strict=True))
        for coming, chosen in kinds.items():
            if not chosen.any():
                continue
            own = game[chosen]
            row = {"layer": layer, "coming": coming, "decisions": len(own)}
            row["games"] = len(np.unique(own))
            for name, values in columns.items():
                row |= _named(name, clustered_mean_interval(values[chosen], own))
            if coming == "all" and is_stop.any() and not is_stop.all():
                row |= _named("auroc", auroc_interval(share, is_stop, game, seed))
            rows.append(row)
    return pl.DataFrame(rows, schema=LENS).fill_nan(None)


def _named(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
