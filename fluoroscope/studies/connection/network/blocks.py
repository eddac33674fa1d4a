"""Pre-norm Transformer blocks, and the cache that an answer is written with.

Weights are as many as in torch's own layers: a block of self-attention has 12 d^2 + 13 d for a
feed-forward part of 4 d, one that also reads a memory 16 d^2 + 19 d. Axes as in `reasoner`.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fluoroscope.core.errors import ConfigError

KeysValues = tuple[Tensor, Tensor]


@dataclass
class DecoderCache:
    """Keys and values of a layer, of what was written and of the memory."""

    written: dict[int, KeysValues] = field(default_factory=dict)
    memory: dict[int, KeysValues] = field(default_factory=dict)


class Attention(nn.Module):
    """Of many heads; queries of `x`, keys and values of what it reads."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ConfigError(
                f"d_model must be a multiple of n_heads, got {d_model} and {n_heads}."
            )
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        keys_values: KeysValues,
        mask: Bool[Tensor, "b k"] | None = None,
        *,
        is_causal: bool = False,
    ) -> Float[Tensor, "b q d"]:
        """`mask` is True where may be read; `is_causal` is for as many queries as keys."""
        keys, values = keys_values
        found = functional.scaled_dot_product_attention(
            self._heads(self.query(x)),
            keys,
            values,
            None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def read(self, x: Float[Tensor, "b k d"]) -> KeysValues:
        """Keys and values, as `[b, heads, k, d / heads]`."""
        return self._heads(self.key(x)), self._heads(self.value(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    def __init__(self, d_model: int, d_hidden: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(d_model, d_hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(d_hidden, d_model),
        )


class EncoderBlock(nn.Module):
    """Self-attention over all tokens, then a feed-forward part; each behind a norm and added."""

    def __init__(
        self, d_model: int, n_heads: int, d_hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm, self.hidden_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = Attention(d_model, n_heads, dropout)
        self.hidden = FeedForward(d_model, d_hidden or 4 * d_model, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s d"]:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, self.attention.read(normed), mask))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to a memory, then a feed-forward part."""

    def __init__(
        self, d_model: int, n_heads: int, d_hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.own_norm, self.memory_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.hidden_norm = nn.LayerNorm(d_model)
        self.own = Attention(d_model, n_heads, dropout)
        self.memory = Attention(d_model, n_heads, dropout)
        self.hidden = FeedForward(d_model, d_hidden or 4 * d_model, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b m d"],
        memory_mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        normed = self.own_norm(x)
        x = x + self.dropout(self.own(normed, self.own.read(normed), is_causal=True))
        return self._rest(x, self.memory.read(memory), memory_mask)

    def write(
        self,
        x: Float[Tensor, "b 1 d"],
        memory: Float[Tensor, "b m d"],
        memory_mask: Bool[Tensor, "b m"] | None,
        cache: DecoderCache,
        layer: int,
    ) -> Float[Tensor, "b 1 d"]:
        """The next position alone; what came before is in the cache, and this is put there."""
        normed = self.own_norm(x)
        keys, values = self.own.read(normed)
        if layer in cache.written:
            earlier_keys, earlier_values = cache.written[layer]
            keys = torch.cat([earlier_keys, keys], dim=2)
            values = torch.cat([earlier_values, values], dim=2)
        cache.written[layer] = keys, values
        if layer not in cache.memory:
            cache.memory[layer] = self.memory.read(memory)
        x = x + self.dropout(self.own(normed, (keys, values)))
        return self._rest(x, cache.memory[layer], memory_mask)

    def _rest(
        self, x: Tensor, memory: KeysValues, memory_mask: Bool[Tensor, "b m"] | None
    ) -> Tensor:
        x = x + self.dropout(self.memory(self.memory_norm(x), memory, memory_mask))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


def noisy(x: Float[Tensor, "b k d"], noise: float) -> Float[Tensor, "b k d"]:
    """With Gaussian noise of `noise` root mean squares of each vector, drawn of torch's generator;
    what it is measured by gets no gradient.
    """
    if not noise:
        return x
    size = x.detach().float().square().mean(-1, keepdim=True).sqrt().to(x)
    return x + noise * size * torch.randn_like(x)
