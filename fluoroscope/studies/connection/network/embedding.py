"""Tokens and their places as vectors; learned, as in the plan."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import ModelError


class Embedding(nn.Module):
    """`E[token] + P[place]`; the row of padding is zero and stays zero."""

    def __init__(
        self, vocab_size: int, d_model: int, n_places: int, pad_id: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model, padding_idx=pad_id)
        self.places = nn.Embedding(n_places, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Int[Tensor, "b s"], first: int = 0) -> Float[Tensor, "b s d"]:
        """`first` is the place of the first token."""
        end, n_places = first + ids.shape[1], self.places.num_embeddings
        if end > n_places:
            raise ModelError(f"There are {n_places} places for tokens, got {end}; cut the text.")
        places = self.places(torch.arange(first, end, device=ids.device))
        return self.dropout(self.tokens(ids) + places)
