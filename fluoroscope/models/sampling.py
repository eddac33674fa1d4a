"""Logits -> the distribution that is sampled, and one token for each row.

Token t of a row is drawn by the t-th number of the row's own stream through the inverse of the
distribution function, in float64: batch size, order and refills change nothing, and two rows
with one seed are under common random numbers.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.seeding import stream
from fluoroscope.models.sampling_config import SamplingConfig

_FEW = 1024
"""Tokens among which a nucleus is looked for before the whole vocabulary is sorted."""


class Sampling(SamplingConfig):
    """How the next token is drawn; the default is the model's own distribution."""

    def probabilities(self, logits: Float[Tensor, "*n vocab"]) -> Float[Tensor, "*n vocab"]:
        """The distribution that is sampled, in float64."""
        logits = logits.double()
        if self.temperature == 0:
            best = torch.zeros_like(logits)
            return best.scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
        # Relative to the largest, so that no temperature is too small to divide by.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            best = logits.topk(self.top_k, dim=-1).values
            n_kept = torch.full_like(best[..., :1], self.top_k, dtype=torch.int64)
            logits = logits.masked_fill(~_largest(logits, best, n_kept), -torch.inf)
        shares = logits.softmax(dim=-1)
        if self.top_p is None or self.top_p == 1:
            return shares
        return _nucleus(shares, self.top_p)

    def probabilities_of(
        self, logits: Float[Tensor, "*n vocab"], sets: Float[Tensor, "vocab m"]
    ) -> Float[Tensor, "*n m"]:
        """The probability of sets of tokens (1 where a token is in), as exact as the logits are."""
        if self.temperature == 0 or self.top_k is not None or self.top_p is not None:
            return self.probabilities(logits) @ sets.double()
        precision = torch.promote_types(logits.dtype, torch.float32)
        shares = (logits.to(precision) / self.temperature).softmax(dim=-1)
        return (shares @ sets.to(precision)).double()

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
    best = shares.topk(n_few, dim=-1).values
    if n_few < shares.shape[-1] and bool((best.sum(dim=-1) < top_p).any()):
        best = shares.sort(dim=-1, descending=True).values
    # A token is in while those before it have not reached top_p; the likeliest always is.
    n_kept = (best.cumsum(dim=-1) - best < top_p).sum(dim=-1, keepdim=True).clamp(min=1)
    inside = shares * _largest(shares, best, n_kept)
    return inside / inside.sum(dim=-1, keepdim=True)


def _largest(
    values: Float[Tensor, "*n vocab"],
    best: Float[Tensor, "*n few"],
    n_kept: Int[Tensor, "*n 1"],
) -> Bool[Tensor, "*n vocab"]:
    """Where the largest values are, given how many of them, and the sorted `best`.

    Logits in half precision are often equal; which of them sorting puts first may depend on
    batch mates, the order of tokens does not.
    """
    smallest = best.gather(-1, n_kept - 1)
    above, equal = values > smallest, values == smallest
    n_equal = n_kept - above.sum(dim=-1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=-1) <= n_equal))
