"""Texts that are asked for, and texts that were written: what `generate` takes and gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint

Finish = Literal["stop_string", "stop_token", "length", "context"]
Pool = Literal["max", "mean", "last"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to be written."""

    prompt: str | tuple[int, ...]
    """A text, to which the tokenizer adds what it always adds; or tokens, taken as they are."""

    seed: int = 0
    """Names the numbers that draw this row's tokens; two requests with one seed are under
    common random numbers."""

    max_tokens: int = 64

    stop: tuple[str, ...] = ()
    """The text ends before the first of these strings that is generated."""

    stop_tokens: tuple[int, ...] | None = None
    """Tokens that end the text; by default those that the model's own configuration names."""

    may_echo: bool = False
    """Whether the prompt's own beginning may be a stop string: base models like to start the
    prompt over, and it is useful to end there."""


@dataclass(frozen=True)
class Capture:
    """What to keep of a stream at the positions whose logits drew the tokens of a text.

    That is the last position of the prompt, then every token but the last. The position that
    draws a stop token is left out, as that token is no part of the text. Activations are seen
    as edited.
    """

    point: HookPoint
    pool: Pool

    read: Callable[[Float[Tensor, "rows d_model"]], Float[Tensor, "rows width"]] | None = None
    """Applied to each position before pooling, such as the encoder of an SAE."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What came of one request."""

    request: int
    """Its place in the list of requests."""

    text: str
    """Without the prompt, without what ended it."""

    tokens: tuple[int, ...]
    """All that were drawn, with those that ended the text."""

    finish: Finish
    """`context` where the model had no position left."""

    n_prompt: int
    """Tokens of the prompt."""

    n_edits: int
    """Edits that were applied, one for every position; checked against what it should be."""

    logprobs: tuple[float, ...] | None = None
    """Log-probability (nats) of each token under the model (as edited) at temperature 1."""

    captured: Mapping[str, Float[Tensor, " width"]] = field(default_factory=dict)
    """Name of each capture -> its pooled value, in float32 or better; 0 for an empty text."""
