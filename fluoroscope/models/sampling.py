"""Logits -> the distribution that is sampled, and one token for each row.

Token t of a row is drawn by the t-th number of the row's own stream through the inverse of the
distribution function, in float64: batch size, order and refills change nothing, and two rows
with one seed are under common random numbers.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from fluoroscope.core.config import Config
from fluoroscope.core.seeding import stream

_FEW = 1024
"""Tokens among which a nucleus is looked for before the whole vocabulary is sorted."""


class Sampling(Config):
    """How the next token is drawn; the default is the model's own distribution."""

    temperature: NonNegativeFloat = 1.0
    """Logits are divided by it; 0 takes the likeliest token."""

    top_k: PositiveInt | None = None
    """Only the k likeliest tokens."""

    top_p: float | None = Field(None, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability (Holtzman et al. 2020)."""

    def probabilities(self, logits: Float[Tensor, "*n vocab"]) -> Float[Tensor, "*n vocab"]:
        """The distribution that is sampled, in float64."""
        logits = logits.double()
        if self.temperature == 0:
            best = torch.zeros_like(logits)
            return best.scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            values, kept = logits.topk(self.top_k, dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter_(-1, kept, values)
        shares = logits.softmax(dim=-1)
        if self.top_p is None or self.top_p == 1:
            return shares
        return _nucleus(shares, self.top_p)

    def choose(
        self, logits: Float[Tensor, "rows vocab"], luck: Float[Tensor, " rows"]
    ) -> Int[Tensor, " rows"]:
        """One token a row; `luck` is uniform in [0, 1)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        reached = self.probabilities(logits).cumsum_(dim=-1)
        # Rounding leaves the last sum beside one; a token of probability 0 is never reached.
        goal = luck[:, None] * reached[:, -1:]
        chosen = torch.searchsorted(reached, goal, right=True).squeeze(1)
        return chosen.clamp_(max=logits.shape[-1] - 1)


def row_luck(seed: int, n_tokens: int) -> np.ndarray:
    """The numbers that draw the first `n_tokens` of a row; more tokens only add to them."""
    return stream(seed, "tokens").random(n_tokens)


def _nucleus(shares: Float[Tensor, "*n vocab"], top_p: float) -> Float[Tensor, "*n vocab"]:
    n_few = min(_FEW, shares.shape[-1])
    best, where = shares.topk(n_few, dim=-1)
    if n_few < shares.shape[-1] and bool((best.sum(dim=-1) < top_p).any()):
        best, where = shares.sort(dim=-1, descending=True)
    # A token is in while those before it have not reached top_p; the likeliest always is.
    kept = best * (best.cumsum(dim=-1) - best < top_p)
    inside = torch.zeros_like(shares).scatter_(-1, where, kept)
    return inside / inside.sum(dim=-1, keepdim=True)
