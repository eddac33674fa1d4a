"""A decoder that reads states of whatever made them, and writes an answer."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluoroscope.studies.connection.network.blocks import DecoderBlock, DecoderCache
from fluoroscope.studies.connection.network.embedding import Embedding


class AnswerDecoder(nn.Module):
    """Pre-norm blocks behind embeddings of their own, a norm, and an untied head without bias."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        max_target: int,
        pad_id: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(vocab_size, d_model, max_target, pad_id, dropout)
        self.blocks = nn.ModuleList(
            DecoderBlock(d_model, n_heads, dropout=dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def forward(
        self,
        target_in: Int[Tensor, "b t"],
        memory: Float[Tensor, "b m d"],
        memory_mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        x = self.embedding(target_in)
        for block in self.blocks:
            x = block(x, memory, memory_mask)
        return self.head(self.dropout(self.norm(x)))

    def write(
        self,
        last: Int[Tensor, " b"],
        n_written: int,
        memory: Float[Tensor, "b m d"],
        memory_mask: Bool[Tensor, "b m"] | None,
        cache: DecoderCache,
    ) -> Float[Tensor, "b v"]:
        """Logits behind `last`, the token number `n_written`, counted from 0."""
        x = self.embedding(last[:, None], first=n_written)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, DecoderBlock), "blocks are what was put there"
            x = block.write(x, memory, memory_mask, cache, layer)
        return self.head(self.dropout(self.norm(x)))[:, 0]


def joined_memory(
    states: Float[Tensor, "b m d"],
    mask: Bool[Tensor, "b m"],
    tokens: Float[Tensor, "b s d"] | None,
    tokens_mask: Bool[Tensor, "b s"] | None,
) -> tuple[Float[Tensor, "b all d"], Bool[Tensor, "b all"]]:
    """States, and the text's tokens behind them where these are read too."""
    if tokens is None or tokens_mask is None:
        return states, mask
    return torch.cat([states, tokens], dim=1), torch.cat([mask, tokens_mask], dim=1)
