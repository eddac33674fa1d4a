"""A latent's identity card: where it is most active, and which tokens it raises and lowers.

Contexts are the windows with the largest activations, one per document, so that a card does
not show the same text ten times. The logit effect is direct: the decoder row through the final
norm's gain (its division left out, and centred over the vocabulary) and the unembedding.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import ModelError
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.sae.base import SparseAutoencoder


class TopContext(NamedTuple):
    """A stretch of a window in which a latent is active."""

    activation: float
    """The largest in the window, which is the marked token's."""

    document: int
    tokens: list[int]
    activations: list[float]
    marked: int
    """Index in `tokens` of the largest activation."""


class TokenEffects(NamedTuple):
    """Direct effect on logits of one unit of the latent, largest first."""

    promoted: list[tuple[int, float]]
    suppressed: list[tuple[int, float]]


class LatentBatch(NamedTuple):
    """Windows and the activations of one hook point in them."""

    tokens: Int[Tensor, "batch pos"]
    document: Int[Tensor, "batch pos"]
    activation: Float[Tensor, "batch pos d_model"]
    encoded: Bool[Tensor, "batch pos"]
    """Positions that the SAE was made for."""


@dataclass
class _Best:
    size: int
    heap: list[tuple[float, int, TopContext]] = field(default_factory=list)
    count: int = 0

    def offer(self, context: TopContext) -> None:
        # Of one document only its best window stays; ties go to the window that came first.
        same = [i for i, entry in enumerate(self.heap) if entry[2].document == context.document]
        if same and self.heap[same[0]][0] >= context.activation:
            return
        for i in same:
            del self.heap[i]
            heapq.heapify(self.heap)
        self.count += 1
        entry = (context.activation, -self.count, context)
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, entry)
        else:
            heapq.heappushpop(self.heap, entry)

    def sorted(self) -> list[TopContext]:
        return [entry[2] for entry in sorted(self.heap, reverse=True, key=lambda e: e[:2])]


@torch.no_grad()
def top_contexts(
    sae: SparseAutoencoder,
    latents: Sequence[int],
    batches: Iterable[LatentBatch],
    n_contexts: int = 10,
    width: int = 24,
) -> dict[int, list[TopContext]]:
    """For each latent its most active contexts, strongest first; dead latents have none.

    `width` tokens before the marked one and half as many after it are kept.
    """
    best = {latent: _Best(n_contexts) for latent in latents}
    columns = torch.tensor(list(latents), dtype=torch.int64, device=sae.W_dec.device)
    for batch in batches:
        x = batch.activation.to(sae.W_dec.device).float()
        active = sae.encode_latents(x, columns) * batch.encoded.to(x.device).unsqueeze(-1)
        active = active.cpu()
        peaks, places = active.max(dim=1)
        for column, latent in enumerate(latents):
            floor = best[latent].heap[0][0] if len(best[latent].heap) == n_contexts else 0.0
            for row in (peaks[:, column] > floor).nonzero()[:, 0].tolist():
                place = int(places[row, column])
                start, stop = max(0, place - width), place + width // 2 + 1
                best[latent].offer(
                    TopContext(
                        activation=float(peaks[row, column]),
                        document=int(batch.document[row, place]),
                        tokens=batch.tokens[row, start:stop].tolist(),
                        activations=active[row, start:stop, column].tolist(),
                        marked=place - start,
                    )
                )
    return {latent: found.sorted() for latent, found in best.items()}


@torch.no_grad()
def logit_effects(
    model: LanguageModel, directions: Float[Tensor, "m d_model"], n_tokens: int = 8
) -> list[TokenEffects]:
    """Tokens whose logit each direction raises and lowers most."""
    effects = unembedded(model, directions.to(model.device, model.dtype)).float()
    effects = effects - effects.mean(dim=-1, keepdim=True)
    high, low = effects.topk(n_tokens), (-effects).topk(n_tokens)
    return [
        TokenEffects(
            list(zip(high.indices[i].tolist(), high.values[i].tolist(), strict=True)),
            list(zip(low.indices[i].tolist(), (-low.values[i]).tolist(), strict=True)),
        )
        for i in range(len(directions))
    ]


def prominent_latents(
    mean_square: Float[Tensor, " s"],
    density: Float[Tensor, " s"],
    n_latents: int,
    max_density: float = 0.1,
) -> list[int]:
    """Latents that carry most energy (mean square activation) among those active on at most
    `max_density` of the tokens: a latent that is nearly always on is seldom about anything.
    """
    energy = torch.where((density > 0) & (density <= max_density), mean_square, -1.0)
    order = energy.argsort(descending=True, stable=True)[:n_latents].tolist()
    return [latent for latent in order if energy[latent] > 0]


def unembedded(
    model: LanguageModel, directions: Float[Tensor, "m d_model"]
) -> Float[Tensor, "m vocab"]:
    """Logits of directions in the residual stream, through the final norm's gain alone."""
    head = model.network.get_output_embeddings()
    if head is None or model.family.kind != "decoder":
        raise ModelError(f"{model.name} has no head that directions could be read through.")
    path = model.family.final_norm
    if path is None:
        return head(directions)
    base = model.network.base_model
    norm = base.get_submodule(path)
    if isinstance(norm, nn.LayerNorm):
        centred = directions - directions.mean(dim=-1, keepdim=True)
        return head(centred * norm.weight)
    # The norm of a row of ones is the gain itself, however the family stores it (Gemma adds 1).
    return head(directions * norm(torch.ones_like(directions[:1])))
