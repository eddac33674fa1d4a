"""A policy as an intervention: at every position where a token is drawn it reads, chooses, adds.

    acting = Acting(model, head, candidates, requests)
    with model.intervened(acting):
        generations = generate(model, requests)
    log = acting.log()

Token t of a request is drawn behind its action t, which depends on the request's seed, on t and
on the row's own state alone: batch size, order and refills change nothing but rounding. A pass
costs one gather of luck, two small products, one gather of steps and one addition; what is told
of a choice (probabilities, entropy) is computed when the log is asked for.

Masking, "active or no-op": at token t a candidate is allowed if it is active in the *running
context* of its row, which is the positions where the row's tokens 0 to t are drawn (the prompt's
last one, then one for each generated token), each as it comes to the hook point, before the
action of that position is added. Earlier positions of the prompt are no part of it: prompts that
begin alike are read once, for all rows together. A candidate behind the first hook point cannot
be seen there before token t is decided, so for it the context ends with token t - 1. No-op is
always allowed.

Axes: rows of a pass that act in it, actions, tokens of the longest text.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass
from fluoroscope.models.texts import Request
from fluoroscope.studies.policy.action_log import ActionLog
from fluoroscope.studies.policy.candidates import NO_OP, Candidates
from fluoroscope.studies.policy.heads import PolicyHead, action_luck, draw, masked

FREE = -1
"""Stands for an action that the policy chooses itself."""


class _Now(NamedTuple):
    """Who acts in the pass that is running: request, t, and where in the batch."""

    requests: Int[Tensor, " rows"]
    places: Int[Tensor, " rows"]
    rows: Int[Tensor, " rows"] | None
    """None while decoding, where every row acts at its only position."""

    columns: Int[Tensor, " rows"]


class TokenActions(ABC):
    """Adds the step of one action at every position where a token is drawn.

    A position counts as edited at every hook point of the candidates, also where the action is
    no-op.
    """

    def __init__(self, model: LanguageModel, candidates: Candidates, n_requests: int) -> None:
        candidates.check_fits(model)
        self._candidates, self._n_requests = candidates, n_requests
        self._device = model.device
        # Half precision would do neither for the products nor for the sum.
        self._precision = torch.promote_types(model.dtype, torch.float32)
        self._steps = {
            point: candidates.steps(point, self._device, self._precision)
            for point in candidates.all_points
        }
        self._pass: Pass | None = None
        self._now: _Now | None = None
        self._requests = self._first = torch.empty(0, dtype=torch.int64)
        self._actions = torch.empty(0, dtype=torch.int64)
        self._awaited: set[HookPoint] = set()

    @property
    def hooks(self) -> Mapping[HookPoint, Hook]:
        return {point: partial(self._edit, point) for point in self._candidates.all_points}

    def key(self, request: int) -> Hashable:
        # Rows with one prompt may act differently at its last position, so none is read for two.
        return request

    def first_position(self, request: int, prompt: Sequence[int]) -> int:
        return len(prompt) - 1

    def expected(
        self,
        request: int,
        prompt: Sequence[int],
        n_positions: int,
        deepest: HookPoint | None = None,
    ) -> int:
        points = self._candidates.all_points
        n_points = sum(deepest is None or not deepest < point for point in points)
        return n_points * max(0, n_positions - self.first_position(request, prompt))

    def begin(self, a_pass: Pass) -> None:
        if not a_pass.is_same_rows:
            self._look_up(a_pass)
        places = a_pass.positions - self._first[:, None]
        if a_pass.is_decoding:
            self._now = _Now(self._requests, places[:, 0], None, self._requests)
        else:
            # Padding stands at -1, before every first position.
            rows, columns = (places >= 0).nonzero(as_tuple=True)
            self._now = _Now(self._requests[rows], places[rows, columns], rows, columns)
        self._pass, self._awaited = a_pass, set(self._steps)

    @abstractmethod
    def _choose(
        self, x: Float[Tensor, "rows d_model"], requests: Tensor, places: Tensor
    ) -> Int[Tensor, " rows"]:
        """The action of each row that acts."""

    def _see(  # noqa: B027 - may be nothing
        self, point: HookPoint, x: Float[Tensor, "rows d_model"], requests: Tensor
    ) -> None:
        """Called at each hook point, before the choice."""

    def _look_up(self, a_pass: Pass) -> None:
        last = max(a_pass.requests)
        if last >= self._n_requests:
            raise InterventionError(
                f"The policy was given {self._n_requests} requests, and there is a request {last}. "
                "Give it the requests that `generate` gets."
            )
        pairs = zip(a_pass.requests, a_pass.prompts, strict=True)
        first = [self.first_position(request, prompt) for request, prompt in pairs]
        self._requests = torch.tensor(a_pass.requests, device=self._device)
        self._first = torch.tensor(first, device=self._device)

    def _edit(self, point: HookPoint, value: Float[Tensor, "batch pos d_model"]) -> Tensor | None:
        if point not in self._awaited or self._pass is None or self._now is None:
            raise InterventionError(
                f"{point} was computed twice in one pass, or by a pass that was not announced, so "
                "that nobody knows where the policy acts. Call forward, run_until or generate of "
                "LanguageModel, not the network itself."
            )
        self._awaited.remove(point)
        now = self._now
        if len(now.requests) == 0:
            return None
        x = value[:, 0] if now.rows is None else value[now.rows, now.columns]
        x = x.to(self._precision)
        self._see(point, x, now.requests)
        if point == self._candidates.acting_point:
            self._actions = self._choose(x, now.requests, now.places)
        numbers, table = self._steps[point]
        changed = (x + table[numbers[self._actions]]).to(value.dtype)
        if now.rows is None:
            self._pass.fired.add_(1)
            return changed[:, None]
        ones = torch.ones_like(now.rows, dtype=self._pass.fired.dtype)
        self._pass.fired.index_add_(0, now.rows, ones)
        edited = value.clone()
        edited[now.rows, now.columns] = changed
        return edited


class Acting(TokenActions):
    """The actions that a head chooses, and a log of them."""

    def __init__(
        self,
        model: LanguageModel,
        head: PolicyHead,
        candidates: Candidates,
        requests: Sequence[Request],
        *,
        is_masked: bool = False,
        keeps_observations: bool = False,
        forced: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """`requests` are those that `generate` gets. `forced` holds for each request the actions
        of its first tokens, FREE where the policy is to choose, as it does behind them; the others
        are logged with the probability that the policy gave them.
        """
        super().__init__(model, candidates, len(requests))
        if head.n_actions != candidates.n_actions or head.down.shape[0] != candidates.d_model:
            raise MismatchError(
                f"The head reads width {head.down.shape[0]} and has {head.n_actions} actions; the "
                f"candidates have width {candidates.d_model} and {candidates.n_actions} actions."
            )
        self._head = head.folded(self._device, self._precision)
        self._keeps_observations = keeps_observations
        n_tokens = max((one.max_tokens for one in requests), default=1)
        lucks = [action_luck(one.seed, one.max_tokens) for one in requests]
        self._luck = _filled(lucks, n_tokens, torch.float64).to(self._device)
        self._forced: Tensor | None = None
        if forced is not None:
            checked = _checked(forced, len(requests), candidates)
            self._forced = _filled(checked, n_tokens, torch.int64, FREE).to(self._device)
        self._active: Tensor | None = None
        self._members: dict[HookPoint, Tensor] = {}
        if is_masked:
            self._start_masking(len(requests))
        self._records: list[tuple[Tensor, ...]] = []

    def log(self) -> ActionLog:
        """All that was chosen so far, sorted by request and token."""
        width = self._candidates.d_model if self._keeps_observations else 0
        empty = (
            *(torch.empty(0, dtype=torch.int64) for _ in range(3)),
            torch.empty(0, self._candidates.n_actions),
            torch.empty(0, width),
        )
        parts = list(zip(*(self._records or [empty]), strict=True))
        requests, places, actions, logits, observations = (torch.cat(part).cpu() for part in parts)
        # Which pass a step was in depends on batch mates; its place in the log must not.
        order = torch.from_numpy(np.lexsort((places.numpy(), requests.numpy())))
        return ActionLog(
            self._candidates,
            requests[order],
            places[order],
            actions[order],
            logits[order],
            observations[order] if self._keeps_observations else None,
        )

    def _choose(
        self, x: Float[Tensor, "rows d_model"], requests: Tensor, places: Tensor
    ) -> Int[Tensor, " rows"]:
        logits = self._head.logits(x)
        if self._active is not None:
            logits = masked(logits, self._candidates.allowed(self._active[requests]))
        actions = draw(logits, self._luck[requests, places])
        if self._forced is not None:
            wanted = self._forced[requests, places]
            actions = torch.where(wanted == FREE, actions, wanted)
        seen = x if self._keeps_observations else x[:, :0]
        self._records.append((requests, places, actions, logits, seen))
        return actions

    def _see(self, point: HookPoint, x: Float[Tensor, "rows d_model"], requests: Tensor) -> None:
        if self._active is not None:
            columns = self._members[point]
            now = self._candidates.active(point, x)
            self._active[requests[:, None], columns] |= now

    def _start_masking(self, n_requests: int) -> None:
        for point in self._candidates.all_points:
            if point not in self._candidates.readers:
                self._candidates.active(point, torch.empty(0, 0))  # Raises, and says why.
            members = self._candidates.members(point)
            self._members[point] = torch.tensor(members, device=self._device)
        shape = (n_requests, self._candidates.n_candidates)
        self._active = torch.zeros(shape, dtype=torch.bool, device=self._device)


class Replay(TokenActions):
    """Actions that are given for each request, one a token, and no-op behind them."""

    def __init__(
        self,
        model: LanguageModel,
        candidates: Candidates,
        scripts: Sequence[Sequence[int]],
        firsts: Sequence[int] | None = None,
    ) -> None:
        """`firsts` is the position of each request's first action, by default its prompt's last;
        where texts are read and not written, the text is the prompt.
        """
        super().__init__(model, candidates, len(scripts))
        self._firsts = firsts
        checked = _checked(scripts, len(scripts), candidates)
        longest = max((len(script) for script in checked), default=0)
        # One more column, for the tokens behind the last that has an action.
        table = _filled(checked, longest + 1, torch.int64, NO_OP)
        self._table = table.clamp(min=NO_OP).to(self._device)

    def first_position(self, request: int, prompt: Sequence[int]) -> int:
        if self._firsts is None or request >= len(self._firsts):
            return super().first_position(request, prompt)
        return self._firsts[request]

    def script(self, request: int, n_tokens: int) -> list[int]:
        """What is done at the first tokens of a request."""
        width = self._table.shape[1]
        return [int(self._table[request, min(t, width - 1)]) for t in range(n_tokens)]

    def _choose(
        self, x: Float[Tensor, "rows d_model"], requests: Tensor, places: Tensor
    ) -> Int[Tensor, " rows"]:
        return self._table[requests, places.clamp(max=self._table.shape[1] - 1)]


def _checked(
    scripts: Sequence[Sequence[int]], n_requests: int, candidates: Candidates
) -> list[Int[Tensor, " _"]]:
    if len(scripts) != n_requests:
        raise InterventionError(
            f"There are {n_requests} requests and actions for {len(scripts)}; one list each."
        )
    for request, script in enumerate(scripts):
        wrong = [one for one in script if not FREE <= one < candidates.n_actions]
        if wrong:
            raise InterventionError(
                f"Request {request} has the action {wrong[0]}; there are 0 (no-op) to "
                f"{candidates.n_actions - 1}. Were these actions logged with other candidates?"
            )
    return [torch.tensor(list(script), dtype=torch.int64) for script in scripts]


def _filled(rows: Sequence[Tensor], width: int, dtype: torch.dtype, filling: float = 0) -> Tensor:
    table = torch.full((len(rows), width), filling, dtype=dtype)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values[:width]
    return table
