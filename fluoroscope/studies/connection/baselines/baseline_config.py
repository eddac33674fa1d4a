"""What the networks that slot networks are compared with are made of; free of torch.

All of them write with the decoder that slot networks have, whose blocks are 4 `d_model` wide, and
read through embeddings of their own. They differ in what is between.
"""

from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from fluoroscope.studies.connection.network.network_config import ReasonerConfig


class _WithDecoder(ReasonerConfig):
    n_heads: PositiveInt = 8
    """Of every attention, also the decoder's."""

    d_hidden: PositiveInt | None = None
    """Width of feed-forward parts before the decoder; null is 4 `d_model`."""

    n_decoder_layers: PositiveInt = 6

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}."
            )
        return self


class TransformerConfig(_WithDecoder):
    """An encoder-decoder Transformer, pre-norm (Vaswani et al. 2017; Xiong et al. 2020)."""

    kind: Literal["transformer"] = "transformer"

    n_encoder_layers: PositiveInt = 6

    final_norm: bool = True
    """Whether what the encoder made is normed before it is read; published counts have no norm."""


class PerceiverConfig(_WithDecoder):
    """Latents that read a text and then think by self-attention (Jaegle et al. 2021)."""

    kind: Literal["perceiver"] = "perceiver"

    n_latents: PositiveInt = 128

    n_layers: PositiveInt = 1
    """Of self-attention in a step."""

    max_steps: NonNegativeInt = 6
    """Steps, which share their weights; more can be done than were trained."""

    every_step: bool = False
    """Whether latents read the text again before every step, with the same weights."""


class LoopedConfig(_WithDecoder):
    """A Transformer whose few layers are done again and again (Dehghani et al. 2019)."""

    kind: Literal["looped"] = "looped"

    n_layers: PositiveInt = 1
    """Of a step; 1 or 2 are usual."""

    max_steps: NonNegativeInt = 6
    """Steps, which share their weights; more can be done than were trained."""


BaselineConfig = TransformerConfig | PerceiverConfig | LoopedConfig
