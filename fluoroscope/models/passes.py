"""What a forward pass reads, said to whatever intervenes in it.

A hook sees a rectangle of activations and cannot know which of them are padding, which belong
to the prompt, or which request a row serves. `Pass` says so, and an `Intervention` that is
active on a model hears of every pass before it runs.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Int
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook


@dataclass(frozen=True)
class Pass:
    """One forward pass of `batch` rows over `pos` new tokens each."""

    requests: tuple[int, ...]
    """Which request each row serves."""

    prompts: tuple[tuple[int, ...], ...]
    """The prompt of each row, as tokens."""

    positions: Int[Tensor, "batch pos"]
    """Where in its own row each token stands, from 0; -1 on padding. A position from the
    prompt's length on holds a token that was generated. Of a model whose positions are slots
    (`LanguageModel.n_slots`), the number of each slot."""

    fired: Int[Tensor, " batch"]
    """Counts the edits that were applied to each row, one for every position; hooks add to it."""

    is_decoding: bool = False
    """Whether every token of the pass is a generated one."""

    is_same_rows: bool = False
    """Whether the rows are those of the pass before, so that what was looked up still holds."""


class Intervention(Protocol):
    """Edits of the activations of every request, applied by hooks and counted."""

    @property
    def hooks(self) -> Mapping[HookPoint, Hook]: ...

    def key(self, request: int) -> Hashable:
        """Requests with one key are edited alike, and share what their prompts have in common."""
        ...

    def first_position(self, request: int, prompt: Sequence[int]) -> int:
        """The first position that is edited; everything before it is as without edits."""
        ...

    def expected(
        self,
        request: int,
        prompt: Sequence[int],
        n_positions: int,
        deepest: HookPoint | None = None,
    ) -> int:
        """How many edits must have been applied once positions 0 to n - 1 were computed, by a
        pass that ended at `deepest`.
        """
        ...

    def begin(self, a_pass: Pass) -> None:
        """Called before each forward pass."""
        ...


def check_fired(
    interventions: Sequence[Intervention], a_pass: Pass, deepest: HookPoint | None = None
) -> None:
    """Raises `InterventionError` unless every row of a pass over whole prompts was edited as
    often as it should have been.
    """
    n_positions = (a_pass.positions >= 0).sum(dim=1).tolist()
    rows = zip(a_pass.requests, a_pass.prompts, n_positions, a_pass.fired.tolist(), strict=True)
    for request, prompt, n, fired in rows:
        check_count(interventions, request, prompt, n, fired, deepest)


def check_count(
    interventions: Sequence[Intervention],
    request: int,
    prompt: Sequence[int],
    n_positions: int,
    fired: int,
    deepest: HookPoint | None = None,
) -> None:
    """Raises `InterventionError` where the edits that were applied are not those asked for."""
    expected = sum(i.expected(request, prompt, n_positions, deepest) for i in interventions)
    if fired != expected:
        raise InterventionError(
            f"Row {request} was edited {fired} times, and should have been {expected} times over "
            f"its {n_positions} positions: a hook did not fire, or fired twice. The text of this "
            "row is not what was asked for. Was a hook of the network removed meanwhile?"
        )
