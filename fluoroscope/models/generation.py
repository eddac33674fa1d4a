"""Text for many requests at once: `generate`, what it takes and what it gives.

A prompt that several requests have in common, and the beginnings of prompts that agree, are
read once; then all rows decode together, and the place of a finished row is taken by the next.
Token t of a request depends on the request's seed, on t and on its own logits alone: batch
size, order and batch mates change nothing but floating-point rounding.

What is active on the model (`steer`, `row_edits`) holds here as in `forward`, and is counted:
a row that was not edited at every position where it should have been is an error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from fluoroscope.core.errors import ModelError
from fluoroscope.models.decoding import Decoding
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prepare
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Capture, Generation, Request

__all__ = ["Capture", "Generation", "Request", "WritesTexts", "generate"]


@runtime_checkable
class WritesTexts(Protocol):
    """A model that is no decoder of a text that goes on, and has a way of its own to write."""

    def write_texts(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        max_rows: int,
        logprobs: bool,
        captures: Mapping[str, Capture],
    ) -> Iterator[Generation]:
        """Texts as they are done, as `generate` promises them."""
        ...


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
    if isinstance(requests, str):
        raise ModelError(f"generate takes a list of requests, got one text; write [{requests!r}].")
    if max_rows < 1:
        raise ModelError(f"max_rows must be 1 or more, got {max_rows}.")
    given = [Request(prompt=one) if isinstance(one, str) else one for one in requests]
    if not given:
        return []
    how = sampling or Sampling(), max_rows, logprobs, captures or {}
    if isinstance(model, WritesTexts):
        texts = model.write_texts(given, *how)
    else:
        texts = Decoding(model, prepare(model, given), *how).run()
    found: list[Generation | None] = [None] * len(given)
    for generation in texts:
        found[generation.request] = generation
        if on_finish is not None:
            on_finish(generation)
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]
