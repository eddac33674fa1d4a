"""A different edit for every row of a batch, at any mix of layers and positions.

What the rows add is looked up in one table a hook point: a pass gathers the directions of its
rows, takes one product with the activations, and adds. So a thousand different edits cost what
one costs, whichever rows are in flight. Every application is counted, and the count compared
with what it should be (`passes.check_count`).
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.interventions.edits import Edit, check_conflicts
from fluoroscope.interventions.placement import Placements
from fluoroscope.interventions.positions import ALL, FOREVER, Positions, Span, count_before
from fluoroscope.interventions.term_table import Applied, Placed, TermTable
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass

EditSet = Mapping[HookPoint | str, Edit | Placed | Sequence[Edit | Placed]]
"""What is edited where: for each hook point one edit or several, which add up."""


@contextmanager
def row_edits(
    model: LanguageModel, rows: Sequence[EditSet], positions: Positions = ALL
) -> Iterator["RowEdits"]:
    """Inside the `with` block row i of a batch, or request i of `generate`, has `rows[i]`."""
    intervention = RowEdits(model, rows, positions)
    with model.intervened(intervention):
        yield intervention


@dataclass(frozen=True)
class _Kind:
    """What one or more rows have in common: the same edits at the same positions."""

    placed: tuple[tuple[HookPoint, Placed], ...]


class RowEdits:
    """The edits of all rows, as the hooks and counts of an `Intervention`."""

    def __init__(
        self,
        model: LanguageModel,
        rows: Sequence[EditSet],
        positions: Positions = ALL,
        *,
        is_for_all: bool = False,
    ) -> None:
        """`is_for_all`: the one row that is given holds for every row."""
        self._model, self._n_rows, self._is_for_all = model, len(rows), is_for_all
        self._kinds: list[_Kind] = []
        numbers: dict[Hashable, int] = {}
        self._kind_of: list[int] = []
        for row in rows:
            placed = _placed(row, positions)
            key = tuple((point, one.edit.key, one.positions) for point, one in placed)
            if key not in numbers:
                numbers[key] = len(self._kinds)
                _check(model, placed)
                self._kinds.append(_Kind(placed))
            self._kind_of.append(numbers[key])
        self._spans: dict[tuple[Positions, tuple[int, ...]], tuple[Span, ...]] = {}
        self._positions: list[Positions] = []
        self._tables = self._make_tables()
        self._placements: Placements | None = None
        self._applied: dict[HookPoint, Applied] = {}
        self._fired = torch.empty(0)
        self._awaited: set[HookPoint] = set()
        self.n_applied = torch.zeros((), dtype=torch.int64, device=model.device)
        """Edits that were applied so far, one for every row and position."""

    @property
    def hooks(self) -> Mapping[HookPoint, Hook]:
        return {point: partial(self._edit, point) for point in self._tables}

    def key(self, request: int) -> Hashable:
        return self._number(request)

    def first_position(self, request: int, prompt: Sequence[int]) -> int:
        spans = self._all_spans(request, tuple(prompt))
        return min((start for found in spans for start, _ in found), default=FOREVER)

    def first_block(self, request: int) -> int:
        """The first block that must run again: all before it do as they do without edits."""
        points = [point for point, _ in self._kinds[self._number(request)].placed]
        return min(map(first_block, points), default=self._model.n_layers)

    def expected(
        self,
        request: int,
        prompt: Sequence[int],
        n_positions: int,
        deepest: HookPoint | None = None,
    ) -> int:
        spans = self._all_spans(request, tuple(prompt), deepest)
        return sum(count_before(found, n_positions) for found in spans)

    def begin(self, a_pass: Pass) -> None:
        if self._placements is None or not a_pass.is_same_rows:
            self._placements = self._look_up(a_pass)
        self._placements.begin(a_pass)
        self._fired = a_pass.fired
        self._awaited = set(self._tables)

    def _edit(self, point: HookPoint, value: Float[Tensor, "batch pos d_model"]) -> Tensor | None:
        if point not in self._awaited:
            raise InterventionError(
                f"{point} was computed twice in one pass, or by a pass that was not announced, so "
                "that nobody knows which positions to edit. Call forward, run_until or generate "
                "of LanguageModel, not the network itself."
            )
        self._awaited.remove(point)
        if point not in self._applied:
            return None
        return self._applied[point].edit(value, self._fired, self.n_applied)

    def _look_up(self, a_pass: Pass) -> Placements:
        kinds = [self._number(request) for request in a_pass.requests]
        placements = Placements(a_pass, self._positions, self._spans_of)
        self._applied = {}
        for point, table in self._tables.items():
            members = [
                (row, number, where)
                for row, kind in enumerate(kinds)
                for number, where in table.of_kind(kind)
                if placements.acts(row, where)
            ]
            if members:
                self._applied[point] = table.applied(members, placements)
        return placements

    def _make_tables(self) -> dict[HookPoint, TermTable]:
        tables: dict[HookPoint, TermTable] = {}
        numbers: dict[Positions, int] = {}
        precision = torch.promote_types(self._model.dtype, torch.float32)
        for number, kind in enumerate(self._kinds):
            for point, placed in kind.placed:
                table = tables.setdefault(point, TermTable(self._model.device, precision))
                where = numbers.setdefault(placed.positions, len(numbers))
                table.add(number, placed.edit, where)
        self._positions = list(numbers)
        return tables

    def _number(self, request: int) -> int:
        if self._is_for_all:
            return 0
        if request >= self._n_rows:
            raise InterventionError(
                f"row_edits was given {self._n_rows} rows, and there is a row {request}. Give one "
                "set of edits for each row or request, {} for none."
            )
        return self._kind_of[request]

    def _all_spans(
        self, request: int, prompt: tuple[int, ...], deepest: HookPoint | None = None
    ) -> list[tuple[Span, ...]]:
        return [
            self._spans_of(placed.positions, prompt)
            for point, placed in self._kinds[self._number(request)].placed
            if deepest is None or not deepest < point
        ]

    def _spans_of(self, positions: Positions, prompt: tuple[int, ...]) -> tuple[Span, ...]:
        key = (positions, prompt)
        if key not in self._spans:
            self._spans[key] = positions.spans(prompt, self._model.tokenizer)
        return self._spans[key]


def _placed(row: EditSet, positions: Positions) -> tuple[tuple[HookPoint, Placed], ...]:
    found: list[tuple[HookPoint, Placed]] = []
    for name, given in row.items():
        point = HookPoint(name) if isinstance(name, str) else name
        several = [given] if isinstance(given, Edit | Placed) else list(given)
        for one in several:
            found.append((point, one if isinstance(one, Placed) else Placed(one, positions)))
    return tuple(sorted(found, key=lambda pair: pair[0]))


def _check(model: LanguageModel, placed: Sequence[tuple[HookPoint, Placed]]) -> None:
    by_point: dict[HookPoint, list[Edit]] = {}
    for point, one in placed:
        one.positions.check(model.name, model.n_slots)
        by_point.setdefault(point, []).append(one.edit)
    for point, edits in by_point.items():
        width = model.width(point)
        for edit in edits:
            if edit.width != width:
                raise MismatchError(
                    f"{type(edit).__name__} has width {edit.width}, and {point} of {model.name} "
                    f"has width {width}. It was made for another model or stream."
                )
            if edit.home is not None and edit.home != point:
                raise MismatchError(
                    f"{type(edit).__name__} uses an SAE of {edit.home}, and was to be applied at "
                    f"{point}. Take the SAE of {point}, or edit {edit.home}."
                )
        check_conflicts(edits, str(point))


def first_block(point: HookPoint) -> int:
    """The first block that an edit of `point` reaches, or that it is inside of."""
    return point.layer + 1 if point.stream == "resid_post" else point.layer
