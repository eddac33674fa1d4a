"""Tokens and their places as vectors; learned, as in the plan."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import ModelError

FIRST_SPREAD = 0.02
"""Standard deviation of what tokens and places begin with, as in the plan's code."""


class Embedding(nn.Module):
    """`E[token] + P[place]`; the row of padding is zero and stays zero."""

    def __init__(
        self, vocab_size: int, d_model: int, n_places: int, pad_id: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.tokens = nn.Embedding(vocab_size, d_model, padding_idx=pad_id)
        self.places = nn.Embedding(n_places, d_model)
        self.dropout = nn.Dropout(dropout)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=FIRST_SPREAD)
        self.zero_padding()

    @torch.no_grad()
    def zero_padding(self) -> None:
        self.tokens.weight[self.pad_id].zero_()

    def forward(
        self, ids: Int[Tensor, "b s"], first: int | Int[Tensor, " b"] = 0
    ) -> Float[Tensor, "b s d"]:
        """`first` is the place of the first token, of all texts or of each; with one of each,
        which is not looked at on its device, the caller answers for there being so many places.
        """
        if isinstance(first, int):
            end, n_places = first + ids.shape[1], self.places.num_embeddings
            if end > n_places:
                raise ModelError(f"There are {n_places} places for tokens, got {end}; cut it.")
        steps = torch.arange(ids.shape[1], device=ids.device)
        where = steps + (first if isinstance(first, int) else first[:, None])
        return self.dropout(self.tokens(ids) + self.places(where))


class Neighbours(nn.Module):
    """`x + conv(x)`: each token hears `n` tokens on each side, nothing of padding.

    What stands next to what is otherwise found by attention to places, which small networks may
    not learn from a hundred thousand texts; Primer (So et al. 2021, arXiv:2109.08668) has
    convolutions behind its queries, keys and values. Pairs of words are then read as easily as
    single ones.
    """

    def __init__(self, d_model: int, n: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(d_model, d_model, 2 * n + 1, padding=n)

    def forward(self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"]) -> Tensor:
        return x + self.conv((x * mask[..., None]).mT).mT


@torch.no_grad()
def spread_embeddings(network: nn.Module, spread: float) -> None:
    """All embeddings in it, which are as drawn, have this standard deviation."""
    for part in network.modules():
        if isinstance(part, Embedding):
            for table in (part.tokens, part.places):
                table.weight.mul_(spread / FIRST_SPREAD)
