"""How a text comes into slots: each token shares itself out, each slot takes the mean of its part.

    q = X Wq    k = H0 Wk    v = X Wv                            d x d, no bias
    A = softmax over SLOTS of q k^T / sqrt(d), 0 at padding      what a token gives sums to 1
    S_0 = H0 + (A^T v) / (sum over tokens of A + 1e-8)

That is the normalisation of Slot Attention (Locatello et al. 2020, arXiv:2006.15055), done once
and with queries that are not trained. Without a mask the plan's code takes the sum and not the
mean, which grows with the text; here there always is a mask. `every_step` does what Slot Attention
does: the states of slots are the keys, and a gate (GRU) says how much of the mean they take up.

Axes as in `reasoner`; h heads, e = d / h.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.network_config import RoutingConfig

EPSILON = 1e-8
"""As in the plan: a slot that no token gives anything stays as it is."""


class Routed(NamedTuple):
    """Slots that have read."""

    states: Float[Tensor, "b m d"]

    routing: Float[Tensor, "b s m"]
    """What share of itself each token gave to each slot, mean over heads; 0 at padding."""


class Reading(NamedTuple):
    """A text as it is read; that it is read in every step costs its projections once."""

    tokens: Float[Tensor, "b s d"]
    mask: Bool[Tensor, "b s"]
    values: Float[Tensor, "b h s e"]
    queries: Float[Tensor, "b h s e"] | None
    """Only where slots read again: what is read once has them folded into the keys."""


class SlotRouting(nn.Module):
    """Tokens into slots, whose first states are orthonormal rows, fixed or learned."""

    def __init__(self, d_model: int, n_slots: int, config: RoutingConfig) -> None:
        super().__init__()
        if d_model % config.n_heads:
            raise ConfigError(
                f"d_model must be a multiple of routing.n_heads, got {d_model} and "
                f"{config.n_heads}."
            )
        self.n_heads = config.n_heads
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.slots: Tensor
        if config.learns_slots:
            self.slots = nn.Parameter(orthonormal_slots(n_slots, d_model))
        else:
            self.register_buffer("slots", orthonormal_slots(n_slots, d_model))
        self.norm = nn.LayerNorm(d_model) if config.every_step else None
        self.gate = nn.GRUCell(d_model, d_model) if config.every_step else None

    @property
    def reads_every_step(self) -> bool:
        return self.gate is not None

    def reading(self, tokens: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"]) -> Reading:
        """The text made ready for `first` and `again`."""
        queries = self._heads(self.query(tokens)) if self.reads_every_step else None
        return Reading(tokens, mask, self._heads(self.value(tokens)), queries)

    def first(self, reading: Reading) -> Routed:
        """`S_0`, by slots that know nothing of the text."""
        taken, routing = self._taken(self._first_scores(reading), reading)
        return Routed(self.slots + taken, routing)

    def again(self, states: Float[Tensor, "b m d"], reading: Reading) -> Routed:
        """Slots that read by what they know; only with `every_step`."""
        assert self.norm is not None, "only a network that reads in every step reads again"
        assert self.gate is not None, "both are made together"
        assert reading.queries is not None, "made where slots read again"
        keys = self._heads(self.key(self.norm(states)))
        taken, routing = self._taken(reading.queries @ keys.transpose(-1, -2), reading)
        # A GRU of its own for every slot of every text: to torch these are all rows.
        kept = self.gate(taken.flatten(0, 1), states.flatten(0, 1))
        return Routed(kept.unflatten(0, states.shape[:2]), routing)

    def _first_scores(self, reading: Reading) -> Float[Tensor, "b h s m"]:
        keys = self.key(self.slots)
        if self.n_heads == 1:
            # (X Wq)(H0 Wk)^T = X (Wq (H0 Wk)^T): the same for all texts, and one product less
            # with every token.
            return (reading.tokens @ (keys @ self.query.weight).T)[:, None]
        queries = reading.queries
        if queries is None:
            queries = self._heads(self.query(reading.tokens))
        return queries @ keys.unflatten(-1, (self.n_heads, -1)).permute(1, 2, 0)

    def _taken(
        self, scores: Float[Tensor, "b h s m"], reading: Reading
    ) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b s m"]]:
        """The mean of what each slot is given, and the shares that were given."""
        width = reading.values.shape[-1]
        given = (scores / width**0.5).softmax(dim=-1) * reading.mask[:, None, :, None]
        sums = given.transpose(-1, -2) @ reading.values
        means = sums / (given.sum(dim=-2)[..., None] + EPSILON)
        return means.transpose(1, 2).flatten(2), given.mean(dim=1)

    def _heads(self, x: Float[Tensor, "b k d"]) -> Float[Tensor, "b h k e"]:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def orthonormal_slots(n_slots: int, d_model: int) -> Float[Tensor, "m d"]:
    """Rows of length 1, orthogonal to each other; of more than `d_model`, those of each group of
    `d_model`. Drawn from torch's generator (Haar measure).
    """
    sizes = (min(d_model, n_slots - start) for start in range(0, n_slots, d_model))
    return torch.cat([nn.init.orthogonal_(torch.empty(size, d_model)) for size in sizes])
