"""What a slot network is made of; this module is free of torch.

The defaults are the `base_config` of the plan (seed 003), whose names for them stand in brackets.
"""

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from fluoroscope.core.config import Config

ConnectionName = Literal[
    "none",
    "linear_feature",
    "linear_slot",
    "bilinear",
    "scalar",
    "shared_basis",
    "node_factor",
    "top_k",
    "gated",
]
HaltingName = Literal["fixed", "threshold", "relative", "learned"]
StepName = Literal["relu_norm", "gated"]
OutputName = Literal["slots_to_sequence", "decoder"]


BOUNDED: tuple[ConnectionName, ...] = (
    "linear_feature",
    "linear_slot",
    "scalar",
    "top_k",
    "gated",
)
"""Forms that have one graph or matrix, whose norm can be bounded."""


class ConnectionConfig(Config):
    """How slots hear each other."""

    name: ConnectionName = "bilinear"

    rank: PositiveInt = 32
    """Of the map of a pair (bilinear, scalar), a basis or a node [bilinear_rank]."""

    n_bases: PositiveInt = 8
    """Maps that all pairs share (shared_basis)."""

    k: PositiveInt = 16
    """Slots that each slot is heard by (top_k); below the number of slots."""

    n_heads: PositiveInt = 1
    """Parts of the width with a graph of their own (gated)."""

    largest: PositiveFloat | None = None
    """Bound of the spectral norm of the graph or matrix (linear_feature, linear_slot, scalar,
    top_k, gated); null leaves it as it is."""

    def of_form(self, name: ConnectionName) -> Self:
        """The same settings of another form, without the bound where nothing can be bounded."""
        largest = self.largest if name in BOUNDED else None
        return self.model_copy(update={"name": name, "largest": largest})


class RoutingConfig(Config):
    """How tokens come into slots."""

    n_heads: PositiveInt = 1

    learns_slots: bool = False
    """Whether the first states of slots are trained; in the plan they are fixed."""

    every_step: bool = False
    """Whether slots read the text in every step, as Slot Attention does, and not once."""


class HaltingConfig(Config):
    """When a text has been thought about enough; each text for itself."""

    name: HaltingName = "threshold"

    threshold: PositiveFloat = 0.01
    """`threshold`: of the largest update of a slot [convergence_threshold]; `relative`: of the
    change of all states; `learned`: not used, as it stops where its head says 1/2."""


class OutputConfig(Config):
    """How slots become an answer."""

    name: OutputName = "slots_to_sequence"

    n_layers: PositiveInt = 6
    """Of the decoder."""

    n_heads: PositiveInt = 8
    """Of the decoder and of what reads the text before slots."""

    reads_tokens: bool = False
    """Whether the decoder reads the text's tokens beside the slots."""


class ReasonerConfig(Config):
    """What every reasoner is told: of what size its words, texts and vectors are."""

    vocab_size: PositiveInt = 32000
    d_model: PositiveInt = 256

    max_source: PositiveInt = 512
    """Tokens of a text [max_seq_len]."""

    max_target: PositiveInt = 512
    """Tokens of an answer."""

    dropout: float = Field(default=0.1, ge=0, lt=1)

    spread: PositiveFloat = 0.02
    """Standard deviation of first embeddings of words and places; 0.02 is the plan's."""

    neighbours: NonNegativeInt = 0
    """Tokens on each side that each token of a text hears first of all, by a convolution; the plan
    has none."""

    noise: NonNegativeFloat = 0.0
    """In training, what is added at random to the first states and to those after each step of
    thought: its standard deviation in root mean squares of a state. It is there to drown what a
    state need not know, so that a step goes by what it finds, and not by what a walk began with.
    Whether a text stops is asked of states without it."""

    pad_id: NonNegativeInt = 0

    @model_validator(mode="after")
    def _padding_is_a_token(self) -> Self:
        if self.pad_id >= self.vocab_size:
            raise ValueError(
                f"pad_id must be one of the {self.vocab_size} tokens, got {self.pad_id}."
            )
        if self.neighbours >= self.max_source:
            raise ValueError(
                f"neighbours must be below the {self.max_source} tokens of a text, got "
                f"{self.neighbours}."
            )
        return self


class NetworkConfig(ReasonerConfig):
    """A slot network: read -> think in steps -> write."""

    n_slots: PositiveInt = 128
    """[num_slots]"""

    max_steps: NonNegativeInt = 6
    """Steps of thought at most [max_reasoning_steps]; 0 thinks not at all."""

    step: StepName = "relu_norm"
    """`relu_norm`: as in the plan, with a norm a step; `gated`: one step for all, which can be done
    more often than it was trained."""

    recalls: bool = True
    """`gated`: whether the first states come in again in every step."""

    connection: ConnectionConfig = ConnectionConfig()
    routing: RoutingConfig = RoutingConfig()
    halting: HaltingConfig = HaltingConfig()
    output: OutputConfig = OutputConfig()

    n_source_layers: NonNegativeInt = 0
    """Layers of self-attention over the text before it is routed; the plan has none."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        heads = {"routing.n_heads": self.routing.n_heads}
        if self.output.name == "decoder" or self.n_source_layers:
            heads["output.n_heads"] = self.output.n_heads
        if self.connection.name == "gated":
            heads["connection.n_heads"] = self.connection.n_heads
        for name, n in heads.items():
            if self.d_model % n:
                raise ValueError(
                    f"d_model must be a multiple of {name}, got {self.d_model} and {n}."
                )
        return self
