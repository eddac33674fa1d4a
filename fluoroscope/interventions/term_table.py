"""The edits of one hook point, as tables from which a pass takes what its rows need.

Axes: members (an edit of a row; terms of one edit are members of their own), pos, d_model.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.interventions.edits import Edit, Term
from fluoroscope.interventions.placement import Change, Placement, Placements
from fluoroscope.interventions.positions import Positions

Member = tuple[int, int, int]
"""A row of the batch, the number of its edit, and that of the positions where it acts."""

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Placed:
    """An edit with positions of its own, which need not be those of its neighbours."""

    edit: Edit
    positions: Positions


class TermTable:
    """All edits of a hook point, by number, and which kinds of rows have them."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._of_kind: dict[int, list[tuple[int, int]]] = {}
        self._edits: list[Edit] = []
        self._terms: list[list[int]] = []
        self._numbers: dict[Hashable, int] = {}
        self._vectors: dict[Hashable, int] = {}
        self._stacked: list[Tensor] = []
        self._all_terms: list[tuple[Term, int, int]] = []
        self._made: tuple[Tensor, Tensor] | None = None

    def add(self, kind: int, edit: Edit, positions: int) -> None:
        """An edit that rows of this kind have, at the positions of this number."""
        if edit.key not in self._numbers:
            self._numbers[edit.key] = len(self._edits)
            self._edits.append(edit)
            self._terms.append([self._add_term(term) for term in edit.terms()])
        self._of_kind.setdefault(kind, []).append((self._numbers[edit.key], positions))

    def of_kind(self, kind: int) -> Sequence[tuple[int, int]]:
        """Numbers of edits, and of their positions."""
        return self._of_kind.get(kind, ())

    def applied(self, members: Sequence[Member], placements: Placements) -> "Applied":
        """What the rows of a pass need."""
        terms = [
            (row, term, where, place == 0)
            for row, number, where in members
            for place, term in enumerate(self._terms[number])
        ]
        parts: list[_Part] = []
        if terms:
            rows, numbers, places, is_counted = zip(*terms, strict=True)
            placement = placements.of(tuple(zip(rows, places, strict=True)), is_counted)
            joint = self._joint(numbers)
            parts.append(_Part(placement, joint.change, joint.reads))
        called: dict[int, list[tuple[int, int]]] = {}
        for row, number, where in members:
            if not self._terms[number]:
                called.setdefault(number, []).append((row, where))
        for number, some in called.items():
            parts.append(_Part(placements.of(some), partial(_called, self._edits[number]), True))
        return Applied(parts)

    def _joint(self, numbers: Sequence[int]) -> "_Terms":
        # Members that all have the same term need it once.
        distinct = set(numbers)
        wanted = list(distinct) if len(distinct) == 1 else numbers
        return _Terms(wanted, [self._all_terms[n][0] for n in distinct], *self._bank())

    def _add_term(self, term: Term) -> int:
        read = -1 if term.read is None else self._vector(term.read, ("read", term.read_key))
        self._all_terms.append((term, self._vector(term.write, ("write", term.write_key)), read))
        return len(self._all_terms) - 1

    def _vector(self, vector: Tensor, key: Hashable) -> int:
        if key not in self._vectors:
            self._vectors[key] = len(self._stacked)
            self._stacked.append(vector)
        return self._vectors[key]

    def _bank(
        self,
    ) -> tuple[Float[Tensor, "vectors d_model"], Float[Tensor, "terms 8"]]:
        if self._made is None:
            found = [vector.detach().to(self._device, self._dtype) for vector in self._stacked]
            rows = [
                [t.alpha, t.beta, t.gamma, t.kappa, t.bias, t.threshold, write, max(read, 0)]
                for t, write, read in self._all_terms
            ]
            scalars = torch.tensor(rows, dtype=torch.float64, device=self._device)
            self._made = torch.stack(found), scalars
        return self._made


class _Part(NamedTuple):
    placement: Placement
    change: Change
    reads: bool
    """Whether the change depends on the activation."""


class Applied:
    """The edits of one pass at one hook point."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def edit(
        self,
        value: Float[Tensor, "batch pos d_model"],
        fired: Int[Tensor, " batch"],
        n_applied: Int[Tensor, ""],
    ) -> Float[Tensor, "batch pos d_model"]:
        """The activation as edited; adds the edits of each row to `fired`, all to `n_applied`."""
        # All edits see the activation as it came, so that their order does not matter. Half
        # precision would not do for sums: what replaces a large number is added to its negative.
        exact = value.float() if value.dtype in _HALF else value
        edited = exact
        for placement, change, reads in self._parts:
            edited = placement.add(edited, exact if reads else None, change)
            fired.add_(placement.counts)
            n_applied.add_(placement.total)
        return edited if edited.dtype == value.dtype else edited.to(value.dtype)


class _Terms:
    """The change of members by one term each, computed together; one term stands for all."""

    def __init__(
        self,
        numbers: Sequence[int],
        distinct: Sequence[Term],
        bank: Float[Tensor, "vectors d_model"],
        scalars: Float[Tensor, "terms 8"],
    ) -> None:
        chosen = scalars[torch.tensor(numbers, device=bank.device)]
        self._write = bank[chosen[:, 6].long()]
        self._read = bank[chosen[:, 7].long()]
        columns = chosen[:, :6].to(bank.dtype).T
        self._alpha, self._beta, self._gamma, self._kappa, self._bias, self._threshold = columns
        self._reads = any(term.beta for term in distinct)
        self._scales = any(term.gamma for term in distinct)
        self._drops = any(term.kappa for term in distinct)
        self._is_one = len(numbers) == 1
        self.reads = self._reads or self._scales or self._drops
        # What is added whatever the activation is, is made once.
        self._constant = self._alpha[:, None] * self._write
        self._wide_constant = self._constant[:, None]

    def change(self, value: Tensor | None, members: Tensor | None) -> Tensor:
        """See `Change`."""
        if value is None:
            if members is None:
                return self._wide_constant
            return self._constant if self._is_one else self._constant[members]

        def own(values: Tensor) -> Tensor:
            if members is None:
                return values[:, None]
            return values if self._is_one else values[members]

        x = value.to(self._write.dtype)
        amount = own(self._alpha)
        if self._reads:
            pre = (x * own(self._read)).sum(dim=-1) + own(self._bias)
            amount = amount + own(self._beta) * torch.where(pre > own(self._threshold), pre, 0)
        if self._scales:
            amount = amount + own(self._gamma) * x.norm(dim=-1)
        change = amount[..., None] * own(self._write)
        return change - own(self._kappa)[..., None] * x if self._drops else change


def _called(edit: Edit, value: Tensor | None, _members: Tensor | None) -> Tensor:
    """The change by one edit that is no sum of terms."""
    assert value is not None
    return edit.change(value)
