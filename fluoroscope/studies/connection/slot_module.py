"""A slot network in the form that `LanguageModel` reads networks in, and where its streams are.

A layer is a step of thought, of a block that is the same for all (`SlotNetwork.forward`), as
ALBERT's layers are runs of one block. Positions are slots. With `x = resid_pre` (`S_t`),
`a = attn_out`, `m = mlp_out`, `resid_post` is `S_(t+1)`, what the next step or the output reads:

    relu_norm   resid_post = norm_t(x + a)                          a = ReLU(heard)
    gated       resid_post = norm(x + a + m + recall * norm(S_0))   a = gate * heard

With `routing.every_step` slots read the text again between `resid_pre` and x. Norms sit on the
residual stream, so the streams are no running sum. `S_0` comes back in every gated step as it was
routed, past the hooks; so does the text where it is read again, or where the decoder reads tokens.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from fluoroscope.core.errors import ModelError
from fluoroscope.models.families import Family
from fluoroscope.models.hook_points import Stream
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.reasoner import Thought
from fluoroscope.studies.connection.network.slot_network import SlotNetwork

MODEL_TYPE = "slot_network"


class SlotsConfig(PreTrainedConfig):
    """The few facts that are asked of every network; the rest is in its `NetworkConfig`."""

    model_type = MODEL_TYPE
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    max_position_embeddings: int = 0


class Said(NamedTuple):
    logits: Float[Tensor, "b t v"]
    thought: Thought


class SlotsForAnswers(PreTrainedModel):
    """Reads texts, and gives logits of answers; a text without one gets those of the first token.

    Takes the network as it is, without a copy. `n_steps` is how often every text is thought about,
    whatever halting says; None leaves it to halting, each text for itself.
    """

    config_class = SlotsConfig
    base_model_prefix = "thinking"

    def __init__(self, slots: SlotNetwork, n_steps: int | None = None) -> None:
        if n_steps is not None and (not isinstance(n_steps, int) or n_steps < 1):
            raise ModelError(
                f"n_steps must be a whole number from 1, or None for halting; got {n_steps!r}."
            )
        super().__init__(
            SlotsConfig(
                vocab_size=slots.vocab_size,
                hidden_size=slots.config.d_model,
                num_hidden_layers=slots.most_steps(n_steps),
                max_position_embeddings=slots.max_source,
            )
        )
        self.thinking = Thinking(slots, n_steps)

    def forward(
        self,
        ids: Int[Tensor, "b s"],
        mask: Bool[Tensor, "b s"],
        target_in: Int[Tensor, "b t"] | None = None,
    ) -> Said:
        slots = self.thinking.slots
        thought = self.thinking(ids, mask)
        if target_in is None:
            target_in = torch.full_like(ids[:, :1], slots.pad_id)
        return Said(slots.logits(thought, target_in), thought)


class Thinking(nn.Module):
    """All that comes before an answer; every step is done, so that hooks see as many each time."""

    def __init__(self, slots: SlotNetwork, n_steps: int | None) -> None:
        super().__init__()
        self.slots, self.n_steps = slots, n_steps

    def forward(self, ids: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"]) -> Thought:
        return self.slots.think(ids, mask, self.n_steps, ends_early=False)


def slot_family(config: NetworkConfig) -> Family:
    """Where streams are in a slot network, and which it has not."""
    missing: dict[Stream, str] = {
        "embed": "what is embedded are the tokens of a text, and positions are slots; 0.resid_pre "
        "is what the text became in them"
    }
    if config.step != "gated":
        missing["mlp_out"] = (
            f"step={config.step} has no feed-forward part, as step=gated has; what is added to "
            "slots is attn_out"
        )
    return Family(
        model_type=MODEL_TYPE,
        kind="encoder-decoder",
        prefix=SlotsForAnswers.base_model_prefix,
        blocks="slots",
        order=lambda slots, facts: [slots] * facts.num_hidden_layers,
        embed="slots.embedding.tokens",
        attn_out="step.heard",
        mlp_out="step.hidden",
        residual=lambda _: "post_norm",
        missing=missing,
    )
