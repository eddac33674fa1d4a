"""Many one-term edits of one hook point as plain tensors: row i of a batch has edit i.

What `RowEdits` does for edits of any kind, for the case that there are hundreds of thousands of
one kind: nothing is done for each of them in Python.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.interventions.positions import LAST, Positions, count_before
from fluoroscope.interventions.row_edits import first_block
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass


@dataclass(frozen=True, eq=False)
class TermBlock:
    """`x + [alpha + beta * act(x . read + bias)] * write`, with a row of each for every edit;
    act passes what exceeds the threshold.
    """

    point: HookPoint
    read: Float[Tensor, "edits d_model"]
    write: Float[Tensor, "edits d_model"]
    bias: Float[Tensor, " edits"]
    threshold: Float[Tensor, " edits"]
    alpha: Float[Tensor, " edits"]
    beta: Float[Tensor, " edits"]

    def __post_init__(self) -> None:
        lengths = [len(getattr(self, name)) for name in _COLUMNS]
        if len(set(lengths)) > 1:
            said = ", ".join(f"{n} {name}" for name, n in zip(_COLUMNS, lengths, strict=True))
            raise InterventionError(f"A TermBlock has one of each for every edit; got {said}.")

    def __len__(self) -> int:
        return len(self.alpha)

    def to(self, device: torch.device, dtype: torch.dtype) -> "TermBlock":
        return replace(self, **{name: getattr(self, name).to(device, dtype) for name in _COLUMNS})


_COLUMNS = ("read", "write", "bias", "threshold", "alpha", "beta")


class BlockEdits:
    """The edits of a `TermBlock` as an `Intervention`: request i has edit i."""

    def __init__(self, model: LanguageModel, block: TermBlock, positions: Positions = LAST) -> None:
        width = model.width(block.point)
        if block.read.shape[1] != width or block.write.shape[1] != width:
            raise MismatchError(
                f"The block has width {block.write.shape[1]}, and {block.point} of {model.name} "
                f"has width {width}. It was made for another model or stream."
            )
        self._model, self._positions = model, positions
        # Half precision would do neither for the product nor for the sum.
        self._block = block.to(model.device, torch.promote_types(model.dtype, torch.float32))
        self._pass: Pass | None = None

    @property
    def hooks(self) -> Mapping[HookPoint, Hook]:
        return {self._block.point: self._edit}

    def key(self, request: int) -> Hashable:
        return request

    def first_position(self, request: int, prompt: Sequence[int]) -> int:
        return self._spans(prompt)[0][0]

    def first_block(self, request: int) -> int:
        return first_block(self._block.point)

    def expected(
        self,
        request: int,
        prompt: Sequence[int],
        n_positions: int,
        deepest: HookPoint | None = None,
    ) -> int:
        if deepest is not None and deepest < self._block.point:
            return 0
        return count_before(self._spans(prompt), n_positions)

    def begin(self, a_pass: Pass) -> None:
        self._pass = a_pass

    def _spans(self, prompt: Sequence[int]) -> Sequence[tuple[int, int]]:
        return self._positions.spans(tuple(prompt), self._model.tokenizer)

    def _edit(self, value: Float[Tensor, "batch pos d_model"]) -> Tensor:
        assert self._pass is not None
        positions = self._pass.positions
        mask = torch.zeros_like(positions, dtype=torch.bool)
        # All rows of a screen have one prompt.
        for start, stop in self._spans(self._pass.prompts[0]):
            mask |= (positions >= start) & (positions < stop)
        self._pass.fired.add_(mask.sum(dim=1))
        block, rows = self._block, torch.tensor(self._pass.requests, device=value.device)
        x = value.to(block.read.dtype)
        pre = torch.einsum("rpd,rd->rp", x, block.read[rows]) + block.bias[rows, None]
        active = torch.where(pre > block.threshold[rows, None], pre, 0)
        amount = torch.where(mask, block.alpha[rows, None] + block.beta[rows, None] * active, 0)
        return (x + amount[..., None] * block.write[rows, None]).to(value.dtype)
