"""The edits of one hook point, as tables from which a pass takes what its rows need.

Axes: members (an edit of a row; terms of one edit are members of their own), pos, d_model.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.interventions.edits import Edit, Term
from fluoroscope.interventions.positions import FOREVER, Positions, Span
from fluoroscope.models.passes import Pass

Member = tuple[int, int, tuple[Span, ...]]
"""A row of the batch, the number of its edit, and the positions where that acts."""


@dataclass(frozen=True)
class Placed:
    """An edit with positions of its own, which need not be those of its neighbours."""

    edit: Edit
    positions: Positions


class TermTable:
    """All edits of a hook point, by number, and which kinds of rows have them."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._of_kind: dict[int, list[tuple[int, Placed]]] = {}
        self._edits: list[Edit] = []
        self._terms: list[list[int]] = []
        self._numbers: dict[Hashable, int] = {}
        self._vectors: dict[Hashable, int] = {}
        self._stacked: list[Tensor] = []
        self._all_terms: list[tuple[Term, int, int]] = []
        self._made: tuple[Tensor, Tensor] | None = None

    def add(self, kind: int, placed: Placed) -> None:
        """An edit that rows of this kind have."""
        edit = placed.edit
        if edit.key not in self._numbers:
            self._numbers[edit.key] = len(self._edits)
            self._edits.append(edit)
            self._terms.append([self._add_term(term) for term in edit.terms()])
        self._of_kind.setdefault(kind, []).append((self._numbers[edit.key], placed))

    def of_kind(self, kind: int) -> Sequence[tuple[int, Placed]]:
        return self._of_kind.get(kind, ())

    def applied(self, members: Sequence[Member], n_rows: int) -> "Applied":
        """What the rows of a pass need."""
        terms = [
            (row, term, spans, place == 0)
            for row, number, spans in members
            for place, term in enumerate(self._terms[number])
        ]
        parts: list[_Terms | _Called] = []
        if terms:
            parts.append(_Terms(terms, *self._vectors_and_scalars(), n_rows))
        called: dict[int, list[Member]] = {}
        for member in members:
            if not self._terms[member[1]]:
                called.setdefault(member[1], []).append(member)
        parts += [_Called(self._edits[n], some, self._device) for n, some in called.items()]
        return Applied(parts)

    def _add_term(self, term: Term) -> int:
        read = -1 if term.read is None else self._vector(term.read, ("read", term.read_key))
        self._all_terms.append((term, self._vector(term.write, ("write", term.write_key)), read))
        return len(self._all_terms) - 1

    def _vector(self, vector: Tensor, key: Hashable) -> int:
        if key not in self._vectors:
            self._vectors[key] = len(self._stacked)
            self._stacked.append(vector)
        return self._vectors[key]

    def _vectors_and_scalars(
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


class Applied:
    """The edits of one pass at one hook point."""

    def __init__(self, parts: "Sequence[_Terms | _Called]") -> None:
        self._parts = parts
        self._fired: Tensor | None = None

    def begin(self, a_pass: Pass) -> None:
        self._fired = a_pass.fired
        for part in self._parts:
            part.begin(a_pass)

    def edit(
        self, value: Float[Tensor, "batch pos d_model"]
    ) -> tuple[Float[Tensor, "batch pos d_model"], Int[Tensor, ""]]:
        """The activation as edited, and how many edits that were."""
        assert self._fired is not None
        # All edits see the activation as it came, so that their order does not matter. Half
        # precision would not do for sums: what replaces a large number is added to its negative.
        exact = value.to(torch.promote_types(value.dtype, torch.float32))
        changes = [part.change(exact) for part in self._parts]
        total = torch.zeros((), dtype=torch.int64, device=value.device)
        edited = exact
        for part, change in zip(self._parts, changes, strict=True):
            edited = edited.index_add(0, part.rows, change.to(exact.dtype))
            counts = part.counts()
            self._fired.index_add_(0, part.rows, counts)
            total += counts.sum()
        return edited.to(value.dtype), total


class _Placement:
    """Rows of a batch, and at which of their positions something happens."""

    def __init__(
        self, rows: Sequence[int], spans: Sequence[tuple[Span, ...]], device: torch.device
    ) -> None:
        self.rows = torch.tensor(rows, device=device)
        widest = max(map(len, spans))
        # Spans that a member does not have are empty.
        filled = [[*some, *[(FOREVER, 0)] * (widest - len(some))] for some in spans]
        self._spans = torch.tensor(filled, device=device)
        self.mask: Bool[Tensor, "members pos"] | None = None

    def begin(self, a_pass: Pass) -> None:
        positions = a_pass.positions[self.rows][..., None]
        starts, stops = self._spans[:, None, :, 0], self._spans[:, None, :, 1]
        self.mask = ((positions >= starts) & (positions < stops)).any(dim=-1)

    def _masked(self, change: Tensor) -> Tensor:
        assert self.mask is not None
        return torch.where(self.mask[..., None], change, 0)


class _Terms(_Placement):
    """Members whose change is one term each, computed together."""

    def __init__(
        self,
        members: Sequence[tuple[int, int, tuple[Span, ...], bool]],
        bank: Float[Tensor, "vectors d_model"],
        scalars: Float[Tensor, "terms 8"],
        n_rows: int,
    ) -> None:
        rows, terms, spans, is_counted = zip(*members, strict=True)
        super().__init__(rows, spans, bank.device)
        chosen = scalars[torch.tensor(terms, device=bank.device)]
        self._write = bank[chosen[:, 6].long()][:, None]
        self._read = bank[chosen[:, 7].long()][:, None]
        columns = chosen[:, :6].to(bank.dtype).T[..., None]
        self._alpha, self._beta, self._gamma, self._kappa, self._bias, self._threshold = columns
        self._reads, self._scales, self._drops = (bool(columns[i].any()) for i in (1, 2, 3))
        self._is_counted = torch.tensor(is_counted, device=bank.device)[:, None]
        self._is_all = list(rows) == list(range(n_rows))

    def change(self, value: Float[Tensor, "batch pos d_model"]) -> Tensor:
        x = (value if self._is_all else value[self.rows]).to(self._write.dtype)
        amount = self._alpha
        if self._reads:
            pre = (x * self._read).sum(dim=-1) + self._bias
            amount = amount + self._beta * torch.where(pre > self._threshold, pre, 0)
        if self._scales:
            amount = amount + self._gamma * x.norm(dim=-1)
        change = amount[..., None] * self._write
        if self._drops:
            change = change - self._kappa[..., None] * x
        return self._masked(change)

    def counts(self) -> Int[Tensor, " members"]:
        assert self.mask is not None
        return (self.mask & self._is_counted).sum(dim=1)


class _Called(_Placement):
    """Members that have one edit which is no sum of terms: it is called once for all of them."""

    def __init__(self, edit: Edit, members: Sequence[Member], device: torch.device) -> None:
        rows, _, spans = zip(*members, strict=True)
        super().__init__(rows, spans, device)
        self._edit = edit

    def change(self, value: Float[Tensor, "batch pos d_model"]) -> Tensor:
        return self._masked(self._edit.change(value[self.rows]))

    def counts(self) -> Int[Tensor, " members"]:
        assert self.mask is not None
        return self.mask.sum(dim=1)
