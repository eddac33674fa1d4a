"""Output score: does a latent do to the output what its direction says it would?

Arad et al. 2025 (EMNLP, "SAEs are good for steering - if you select the right features",
arXiv:2505.20063), by the definition and the code published with it. Of latent j at a hook point:

- L_j: the 20 tokens whose logits its decoder direction raises most, read through the head and the
  final norm's gain (the logit lens).
- The model reads `NEUTRAL_PROMPT`; at its last position 10 a W_dec[j] is added, where a is the
  largest activation of any latent there. p is the distribution of the next token.
- score_j = (1 - min over t in L_j of rank_p(t) / |V|) max over t in L_j of p(t), ranks from 0.

The token of L_j with the best rank is the one with the largest p, so that one count of likelier
tokens gives the score. As in the paper latents with low scores are dropped before any is picked;
which score is high is relative to the other candidates here, as p depends on the vocabulary.

Axes: m latents, vocab.
"""

import math

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_selection import ranked
from fluoroscope.features.examples import unembedded
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.positions import LAST
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method, points_of
from fluoroscope.studies.steering.methods.latent_parts import latent_plan, some, usable_latents
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.recipes import Recipe

NEUTRAL_PROMPT = "From my experience,"
FACTOR = 10.0
N_TOKENS = 20
"""Of the logit lens."""

MOST_CANDIDATES = 200
KEPT_SHARE = 0.25
"""Of the candidates of all layers: those with the highest scores."""

_ROWS = 64
"""Latents of one forward pass."""


class OutputScore(Method):
    """Among latents with a significant r, best first and equally many of a layer."""

    about = "Of every layer the largest r among latents that act on the output (Arad et al.)."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        table = usable_latents(recipe, material)
        order = ranked(table, "r", recipe.sign, only_significant=True)
        order = some(order, table, recipe, "significant ")
        points = [str(point) for point in points_of(recipe, material)]
        most = max(1, MOST_CANDIDATES // len(points))
        chosen = pl.concat(
            order.filter(pl.col("hook_point") == point).head(most) for point in points
        )
        scored = _scored(chosen, material)
        n_kept = math.ceil(KEPT_SHARE * len(scored))
        kept = scored.sort("output_score", descending=True, maintain_order=True).head(n_kept)
        best = [kept.filter(pl.col("hook_point") == point).sort("rank").head(1) for point in points]
        fell = [point for point, rows in zip(points, best, strict=True) if rows.is_empty()]
        note = (
            f"The {n_kept} of {len(scored)} significant latents with an output score of "
            f"{kept['output_score'][-1]:.2g} or more could be picked"
        )
        note += f"; none of them in {', '.join(fell)}." if fell else "."
        return latent_plan(pl.concat(best), recipe, material, note)


def output_scores(
    model: LanguageModel, point: HookPoint, sae: SparseAutoencoder, latents: list[int]
) -> Float[np.ndarray, " m"]:
    """The score of each of these latents; 64 take one forward pass."""
    tokens = torch.tensor([prompt_tokens(model, NEUTRAL_PROMPT)])
    amount = FACTOR * _largest_activation(model, point, sae, tokens)
    found = []
    with torch.no_grad():
        for part in torch.tensor(latents).split(_ROWS):
            directions = sae.W_dec[part.to(sae.W_dec.device)].detach()
            effects = unembedded(model, directions.to(model.device, model.dtype))
            promoted = effects.float().topk(min(N_TOKENS, effects.shape[-1])).indices
            rows: list[EditSet] = [{point: AddDirection(one, amount)} for one in directions]
            with row_edits(model, rows, LAST):
                logits = model.forward(tokens.expand(len(rows), -1))[:, -1]
            found.append(_scores(logits.double().softmax(dim=-1), promoted))
    return torch.cat(found).cpu().numpy()


def _scores(p: Float[Tensor, "m vocab"], promoted: Tensor) -> Float[Tensor, " m"]:
    best = p.gather(1, promoted).amax(dim=1)
    rank = (p > best[:, None]).sum(dim=1)
    return (1 - rank / p.shape[1]) * best


def _largest_activation(
    model: LanguageModel, point: HookPoint, sae: SparseAutoencoder, tokens: Tensor
) -> float:
    """Of any latent at the prompt's last position."""
    seen: list[Tensor] = []
    model.run_until({point: lambda x: seen.append(x[:, -1])}, tokens)
    with torch.no_grad():
        largest = float(sae.encode(seen[0].to(sae.W_dec)).max())
    if largest <= 0:
        raise ConfigError(
            f"No latent of {point} is active behind {NEUTRAL_PROMPT!r}, so output scores have no "
            "scale there. Leave this layer out (layers=), or use another method."
        )
    return largest


def _scored(chosen: pl.DataFrame, material: Material) -> pl.DataFrame:
    parts = []
    for rows in chosen.partition_by("hook_point", maintain_order=True):
        name = rows["hook_point"][0]
        scores = output_scores(
            material.model, HookPoint(name), material.saes[name], rows["latent"].to_list()
        )
        parts.append(rows.with_columns(output_score=pl.Series(scores)))
    return pl.concat(parts)
