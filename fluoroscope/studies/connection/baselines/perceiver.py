"""Latents that read a text by cross-attention, and think by self-attention among themselves.

Perceiver IO (Jaegle et al. 2021, arXiv:2107.14795) with one tower for all steps, as in the first
Perceiver; its output queries are the decoder, which all baselines share. Latents are learned.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluoroscope.studies.connection.baselines.baseline_config import PerceiverConfig
from fluoroscope.studies.connection.baselines.decoded import RepeatingReasoner, States, Text
from fluoroscope.studies.connection.network.blocks import Attention, FeedForward
from fluoroscope.studies.connection.network.reasoner import Mask, Thought


class Perceiver(RepeatingReasoner):
    """Its states are the latents, normed, as the decoder reads them."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(config)
        self.config = config
        self.latents = nn.Parameter(0.02 * torch.randn(config.n_latents, config.d_model))
        self.reading = _Reading(config)

    def start(self, text: Text, mask: Mask) -> States:
        return self.reading(self.latents.expand(len(text), -1, -1), text, mask)

    def step(self, states: States, text: Text, mask: Mask) -> States:
        x = self.reading(states, text, mask) if self.config.every_step else states
        for block in self.blocks:
            x = block(x)
        return x

    def read(self, states: States) -> States:
        return self.norm(states)

    def states_mask(self, mask: Mask) -> Bool[Tensor, "b m"]:
        return mask.new_ones(len(mask), len(self.latents))

    def _memory_mask(self, thought: Thought) -> None:
        """All latents may be read, and a mask of ones would only cost."""


class _Reading(nn.Module):
    """Latents attend to the text, then a feed-forward part; each behind a norm and added."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        d = config.d_model
        self.latents_norm, self.hidden_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, config.n_heads, config.dropout)
        self.hidden = FeedForward(d, config.d_hidden or 4 * d, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, latents: Float[Tensor, "b m d"], text: Float[Tensor, "b s d"], mask: Mask
    ) -> Float[Tensor, "b m d"]:
        read = self.attention.read(text)
        x = latents + self.dropout(self.attention(self.latents_norm(latents), read, mask))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))
