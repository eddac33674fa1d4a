"""Text for many requests at once: `generate`, what it takes and what it gives.

A prompt that several requests have in common, and the beginnings of prompts that agree, are
read once; then all rows decode together, and the place of a finished row is taken by the next.
Token t of a request depends on the request's seed, on t and on its own logits alone: batch
size, order and batch mates change nothing but floating-point rounding.

What is active on the model (`steer`, `row_edits`) holds here as in `forward`, and is counted:
a row that was not edited at every position where it should have been is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ModelError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling

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


def generate(
    model: LanguageModel,
    requests: Sequence[Request | str],
    *,
    sampling: Sampling | None = None,
    max_rows: int = 256,
    logprobs: bool = False,
    captures: Mapping[str, Capture] | None = None,
    on_finish: Callable[[Generation], None] | None = None,
) -> list[Generation]:
    """One text for every request, in their order; a string is a request with the defaults.

    At most `max_rows` rows decode at once, fewer where their keys and values would not fit into
    a quarter of the memory that is free. `on_finish` gets each text as it is done.
    """
    from fluoroscope.models.decoding import Decoding
    from fluoroscope.models.requests import prepare

    if isinstance(requests, str):
        raise ModelError(f"generate takes a list of requests, got one text; write [{requests!r}].")
    if max_rows < 1:
        raise ModelError(f"max_rows must be 1 or more, got {max_rows}.")
    given = [Request(prompt=one) if isinstance(one, str) else one for one in requests]
    if not given:
        return []
    prepared = prepare(model, given)
    decoding = Decoding(model, prepared, sampling or Sampling(), max_rows, logprobs, captures or {})
    found: list[Generation | None] = [None] * len(given)
    for generation in decoding.run():
        found[generation.request] = generation
        if on_finish is not None:
            on_finish(generation)
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]
