"""One step for all: what is heard comes in through a gate, then each slot thinks for itself.

    heard = hear(norm(S))        S' = S + sigmoid(gate) * heard
    S_t   = norm(S' + FFN(norm(S')) + recall * norm(S_0))

Nothing in it knows which step it is, so it can be taken more often than in training. For that it
must come to rest somewhere that depends on the text: the outer norm bounds the states and `S_0`
comes in again in every step, without which loops have no such places (arXiv:2509.23314). A slot's
own nonlinearity is the FFN; the plan has only the ReLU on what is heard.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.studies.connection.network.blocks import FeedForward
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.steps.base import Hears, Moved, Step


class Gated(Step):
    """The gate reads a slot and what it hears, and has a value for each entry. Without
    `config.recalls` nothing of `S_0` comes in again: what a walk has left behind may be forgotten.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        d_model = config.d_model
        self.most = None
        self.heard_norm, self.hidden_norm = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.norm = nn.RMSNorm(d_model)
        self.gate = nn.Linear(2 * d_model, d_model)
        self.hidden = FeedForward(d_model, 4 * d_model, config.dropout)
        if config.recalls:
            self.first_norm = nn.RMSNorm(d_model)
            self.recall = nn.Parameter(torch.ones(d_model))
        self.recalls = config.recalls

    def forward(
        self,
        states: Float[Tensor, "b m d"],
        first: Float[Tensor, "b m d"],
        hears: Hears,
        index: int,
    ) -> Moved:
        normed = self.heard_norm(states)
        heard = hears(normed)
        gate = self.gate(torch.cat([normed, heard], dim=-1)).sigmoid()
        update = self.heard(gate * heard)
        mixed = states + update
        thought = mixed + self.hidden(self.hidden_norm(mixed))
        if self.recalls:
            thought = thought + self.recall * self.first_norm(first)
        return Moved(self.norm(thought), update)
