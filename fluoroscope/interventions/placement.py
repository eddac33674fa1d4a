"""Where the edits of one pass act: found once, for all hook points that have the same rows.

A pass over prompts is edited at few of its positions (one a row, where edits begin at a prompt's
last token): there the activations of those are taken out, changed and put back. While decoding
every row is edited at its one position, and nothing is left to be asked.

Axes: members (rows of the batch; a row with several edits is there several times), hits (positions
of members where something happens), batch, pos, d_model.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.interventions.positions import FOREVER, Positions, Span
from fluoroscope.models.passes import Pass

Change = Callable[[Tensor | None, Tensor | None], Tensor]
"""Gets activations (None where it adds the same to any): [members, pos, d_model] without numbers of
members, or [hits, d_model] with those of each hit. Gives what is added to them, of a shape that may
be broadcast to theirs."""

SpansOf = Callable[[Positions, tuple[int, ...]], tuple[Span, ...]]
"""The spans of some positions in a prompt."""


class Placement:
    """Members, and at which of their positions something happens."""

    def __init__(
        self,
        rows: Sequence[int],
        spans: Sequence[tuple[Span, ...]],
        is_counted: Sequence[bool],
        a_pass: Pass,
    ) -> None:
        """Of members that are not counted another term of the same edit is."""
        device, n_rows = a_pass.positions.device, len(a_pass.requests)
        self._rows = torch.tensor(rows, device=device)
        self._is_every_row = list(rows) == list(range(n_rows))
        self._is_counted = torch.tensor(is_counted, device=device)
        self._mask: Tensor | None = None
        self._hits: tuple[Tensor, Tensor, Tensor] | None = None
        self._is_always = a_pass.is_decoding and all(
            any(start <= len(a_pass.prompts[row]) and stop == FOREVER for start, stop in some)
            for row, some in zip(rows, spans, strict=True)
        )
        widest = max(map(len, spans))
        # Spans that a member does not have are empty.
        filled = [[*some, *[(FOREVER, 0)] * (widest - len(some))] for some in spans]
        self._spans = torch.tensor([] if self._is_always else filled, device=device)
        self.counts: Int[Tensor, " batch"] = torch.zeros(n_rows, dtype=torch.int64, device=device)
        """Edits of each row in this pass, at one hook point."""
        self._count(self._is_counted)

    def begin(self, a_pass: Pass) -> None:
        """Looks where the positions of this pass are among those that are edited."""
        if self._is_always:
            return
        positions = a_pass.positions[self._rows][..., None]
        starts, stops = self._spans[:, None, :, 0], self._spans[:, None, :, 1]
        mask = ((positions >= starts) & (positions < stops)).any(dim=-1)
        self._count((mask & self._is_counted[:, None]).sum(dim=1))
        members, columns = mask.nonzero(as_tuple=True)
        self._hits = self._mask = None
        if 2 * len(members) <= mask.numel():
            self._hits = members, self._rows[members], columns
        else:
            self._mask = mask

    def add(
        self,
        edited: Float[Tensor, "batch pos d_model"],
        value: Float[Tensor, "batch pos d_model"] | None,
        change: Change,
    ) -> Float[Tensor, "batch pos d_model"]:
        """`edited` with what `change` makes of `value` added, where it acts; no value for what
        adds the same to any.
        """
        if self._hits is not None:
            members, rows, columns = self._hits
            if len(members) == 0:
                return edited
            x = None if value is None else value[rows, columns]
            added = change(x, members)
            return edited.index_put((rows, columns), added.to(edited.dtype), accumulate=True)
        x = value if value is None or self._is_every_row else value[self._rows]
        added = change(x, None)
        if self._mask is not None:
            added = torch.where(self._mask[..., None], added, 0)
        if added.dtype != edited.dtype:
            added = added.to(edited.dtype)
        if self._is_every_row:
            return edited + added
        shape = len(self._rows), *edited.shape[1:]
        return edited.index_add(0, self._rows, added.expand(shape))

    def _count(self, numbers: Tensor) -> None:
        self.counts = torch.zeros_like(self.counts).index_add_(0, self._rows, numbers.long())
        self.total: Int[Tensor, ""] = self.counts.sum()


class Placements:
    """The placements of one pass; positions go by number."""

    def __init__(self, a_pass: Pass, positions: Sequence[Positions], spans_of: SpansOf) -> None:
        self._pass, self._positions, self._spans_of = a_pass, positions, spans_of
        self._spans: dict[tuple[int, int], tuple[Span, ...]] = {}
        self._made: dict[tuple[tuple[tuple[int, int], ...], tuple[bool, ...]], Placement] = {}

    def acts(self, row: int, number: int) -> bool:
        """Whether anything of these positions can be in this pass."""
        prompt = self._pass.prompts[row]
        place = row, number
        if place not in self._spans:
            self._spans[place] = self._spans_of(self._positions[number], prompt)
        # What ends with the prompt does nothing to generated tokens.
        return not self._pass.is_decoding or self._spans[place][-1][1] > len(prompt)

    def of(
        self, members: Sequence[tuple[int, int]], is_counted: Sequence[bool] | None = None
    ) -> Placement:
        """Of members that act, each a row and the number of its positions."""
        key = tuple(members), tuple(is_counted or (True,) * len(members))
        if key not in self._made:
            spans = [self._spans[member] for member in members]
            self._made[key] = Placement([row for row, _ in members], spans, key[1], self._pass)
        return self._made[key]

    def begin(self, a_pass: Pass) -> None:
        for placement in self._made.values():
            placement.begin(a_pass)
