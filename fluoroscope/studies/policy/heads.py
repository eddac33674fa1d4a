"""The low-rank head that decides at a token, and its choice with log-probabilities that match.

    h = tanh(((x - centre) * scale) down),  logits = h up + bias      d -> r -> A

Rank r keeps it below 1 % of a block (`added_flops_share`). The scale is measured once
(`calibrate`) and fixed, so that a state means the same throughout a training; for acting it is
folded into `down`, so that a token costs two small products. A policy that draws noisy latents
and scores them by another density than they were drawn by does not learn (the ratio of the two
underflows), so there is one distribution here: the masked softmax, in float64, drawn by inverse
distribution function, and its own logarithm.

Axes: n positions, d_model, r rank, actions.
"""

import copy
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.seeding import stream, torch_stream
from fluoroscope.models.shape import ModelShape

_CERTAIN = 1e6
"""Times its logits, the likeliest action of a head leaves none to the others."""


class FoldedHead(NamedTuple):
    """A head for acting: two products and a tanh."""

    down: Float[Tensor, "d_model r"]
    shift: Float[Tensor, " r"]
    up: Float[Tensor, "r actions"]
    bias: Float[Tensor, " actions"]

    def logits(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n actions"]:
        hidden = torch.addmm(self.shift, x, self.down).tanh_()
        return torch.addmm(self.bias, hidden, self.up)


class LowRankHead(nn.Module):
    """d -> r -> `width`, which starts as a constant: what it gives is its bias."""

    def __init__(self, d_model: int, rank: int, width: int, seed: int, name: str) -> None:
        super().__init__()
        if not 1 <= rank <= d_model:
            raise ConfigError(f"The rank of a head is 1 to {d_model} (d_model), got {rank}.")
        down = torch.randn(d_model, rank, generator=torch_stream(seed, "policy", name))
        self.down = nn.Parameter(down / d_model**0.5)
        self.up = nn.Parameter(torch.zeros(rank, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(d_model))

    @torch.no_grad()
    def calibrate(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Measures centre and scale: one number for all dimensions, so that directions keep their
        angles, such that a row has unit variance per dimension.
        """
        exact = rows.double()
        centre = exact.mean(dim=0)
        spread = float((exact - centre).square().mean().sqrt())
        if not math.isfinite(spread) or spread == 0:
            raise NumericsError(
                f"The states of the policy have a spread of {spread} in {len(rows)} rows; a head "
                "can only be calibrated where they are finite and differ. Give more prompts."
            )
        self.centre.copy_(centre)
        self.scale.fill_(1 / spread)

    def forward(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n width"]:
        scaled = (x - self.centre) * self.scale
        return (scaled @ self.down).tanh() @ self.up + self.bias

    @torch.no_grad()
    def folded(self, device: torch.device, dtype: torch.dtype) -> FoldedHead:
        """The same function, with the scale in the weights."""
        down = self.down.double() * self.scale.double()[:, None]
        shift = -(self.centre.double() @ down)
        parts = (down, shift, self.up, self.bias)
        return FoldedHead(*(part.detach().to(device, dtype) for part in parts))


class PolicyHead(LowRankHead):
    """Logits of all actions, of which action 0 is no-op."""

    def __init__(
        self, d_model: int, rank: int, n_actions: int, *, no_op_share: float = 0.5, seed: int = 0
    ) -> None:
        """It starts by doing nothing at a share `no_op_share` of the tokens where all actions are
        allowed, and with all others equally often.
        """
        super().__init__(d_model, rank, n_actions, seed, "head")
        if not 0 < no_op_share < 1 or n_actions < 2:
            raise ConfigError(
                "A policy has no-op and another action, and starts with no-op at a share between "
                f"0 and 1; got {n_actions} actions and {no_op_share}."
            )
        with torch.no_grad():
            self.bias[0] = math.log(no_op_share / (1 - no_op_share) * (n_actions - 1))

    @property
    def n_actions(self) -> int:
        return self.bias.shape[0]

    @torch.no_grad()
    def likeliest(self) -> "PolicyHead":
        """A head that always takes the likeliest action of this one."""
        same = copy.deepcopy(self)
        same.up.mul_(_CERTAIN)
        same.bias.mul_(_CERTAIN)
        return same

    def log_probs(
        self, x: Float[Tensor, "n d_model"], allowed: Bool[Tensor, "n actions"]
    ) -> Float[Tensor, "n actions"]:
        """Of every action in every state; -inf where it is not allowed."""
        return masked(self(x), allowed).log_softmax(dim=-1)


class ValueHead(LowRankHead):
    """What a state is worth: the critic of PPO."""

    def __init__(self, d_model: int, rank: int, seed: int = 0) -> None:
        super().__init__(d_model, rank, 1, seed, "value")

    def forward(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        return super().forward(x)[:, 0]


def masked(
    logits: Float[Tensor, "n actions"], allowed: Bool[Tensor, "n actions"]
) -> Float[Tensor, "n actions"]:
    """-inf where an action is not allowed; no-op always is."""
    return logits.masked_fill(~allowed, -torch.inf)


def draw(logits: Float[Tensor, "n actions"], luck: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """One action a row from masked logits, by the inverse of the distribution function; `luck` is
    uniform in [0, 1). An action of probability 0 is never drawn.
    """
    reached = logits.double().softmax(dim=-1).cumsum_(dim=-1)
    goal = luck[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, goal, right=True).squeeze(1)


def entropy(log_probs: Float[Tensor, "n actions"]) -> Float[Tensor, " n"]:
    """In nats; actions that are not allowed add nothing."""
    # Their -inf would be NaN in the sum and in its gradient.
    finite = log_probs.masked_fill(log_probs == -torch.inf, 0)
    return -(log_probs.exp() * finite).sum(dim=-1)


def action_luck(seed: int, n_tokens: int) -> Float[Tensor, " n_tokens"]:
    """The numbers that draw the first `n_tokens` actions of a row: a stream of their own, apart
    from that of its tokens, and dependent on the row's seed alone.
    """
    return torch.from_numpy(stream(seed, "actions").random(n_tokens))


def head_flops(d_model: int, rank: int, n_actions: int, n_masked: int = 0) -> float:
    """Floating-point operations for one token: the two products, the step along a direction, and
    for masking the activation of `n_masked` latents.
    """
    return float(2 * (d_model * rank + rank * n_actions + d_model + n_masked * d_model))


def added_flops_share(
    shape: ModelShape,
    rank: int,
    n_candidates: int,
    n_multiples: int = 1,
    *,
    is_masked: bool = False,
) -> float:
    """What a policy adds to a token, as a share of what one block of the model computes for it.

    A block without its attention to earlier tokens, which would only make the share smaller.
    """
    head = shape.vocab_size * shape.d_model
    block = 2 * (shape.n_multiplied - head) / shape.n_layers
    n_actions = 1 + n_candidates * n_multiples
    added = head_flops(shape.d_model, rank, n_actions, n_candidates if is_masked else 0)
    return added / block
