"""One row that a model reads token by token, with its activations at hook points.

`generate` decodes many rows and hands out whole texts; here each token is handed out as soon as it
is read. What was read stays in a cache, so a token costs one pass over one token. Interventions
that are active on the model hold here too.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass
from fluoroscope.models.prefill import Job, prefill, shortened
from fluoroscope.models.row_cache import Layout, RowCache
from fluoroscope.models.row_reader import RowReader


class Seen(NamedTuple):
    """At the last token that was read."""

    logits: Float[Tensor, " vocab"]
    states: Mapping[HookPoint, Float[Tensor, "1 d_model"]]


class OneRow:
    """Reads a prompt, then up to `n_tokens` tokens behind it."""

    def __init__(
        self,
        model: LanguageModel,
        points: Sequence[HookPoint],
        prompt: tuple[int, ...],
        n_tokens: int,
    ) -> None:
        self._reader, self._points, self._prompt = RowReader(model), points, prompt
        self._cache = RowCache(1, len(prompt) + n_tokens)
        self._n_read = 0
        self._fired = torch.zeros(1, dtype=torch.int64, device=model.device)

    def read_prompt(self) -> Seen:
        """Its last token is seen."""
        states: dict[HookPoint, Tensor] = {}
        with self._open(states):
            job, _ = shortened(self._reader, Job(0, self._prompt, 0, len(self._prompt)))
            filled = prefill(self._reader, [job], self._cache.window(0, 1))
        self._n_read = len(self._prompt)
        return Seen(filled.logits[0], states)

    def read(self, token: int) -> Seen:
        """One token more."""
        device = self._reader.model.device
        place = torch.full((1, 1), self._n_read, device=device)
        layout = Layout(
            own=place,
            columns=place,
            width=self._n_read + 1,
            positions=place,
            starts=torch.zeros(1, dtype=torch.int64, device=device),
            groups=[],
        )
        a_pass = Pass(
            requests=(0,),
            prompts=(self._prompt,),
            positions=place,
            fired=self._fired,
            is_decoding=True,
        )
        states: dict[HookPoint, Tensor] = {}
        with self._open(states):
            tokens = torch.full((1, 1), token, device=device)
            logits = self._reader.read(tokens, self._cache, layout, a_pass)
        self._n_read += 1
        return Seen(logits[0], states)

    def _open(self, states: dict[HookPoint, Tensor]) -> ExitStack:
        """Between two tokens the network is as it was before."""

        def keep(point: HookPoint, value: Tensor) -> None:
            # The last column holds the last token: padding stands on the left.
            states[point] = value[:, -1].to(torch.promote_types(value.dtype, torch.float32))

        stack = ExitStack()
        stack.enter_context(torch.no_grad())
        stack.enter_context(self._reader.open())
        hooks = {point: lambda value, p=point: keep(p, value) for point in self._points}
        stack.enter_context(self._reader.model.hooked(hooks))
        return stack
