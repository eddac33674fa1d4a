"""Exact effects of edits of a prompt's last position, without sampling.

Before a token is generated, an edit of the last position at block l changes that position in
the blocks behind l and nothing else. So a prompt is read once; then every edit costs one token
through the blocks behind it, and thousands of edits go through as one batch. The result is the
exact distribution of the next token, and by teacher forcing that of whole answers: what the
seeds estimate from fifty samples a cell, without their noise.

Axes: edits, vocab, answers.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError, NumericsError
from fluoroscope.interventions.answers import Answer, AnswerTree, check_tokens
from fluoroscope.interventions.positions import LAST, Positions
from fluoroscope.interventions.row_edits import EditSet, RowEdits
from fluoroscope.interventions.term_block import BlockEdits, TermBlock
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass
from fluoroscope.models.prefill import Job, prefill, shortened
from fluoroscope.models.requests import prompt_tokens, writable_context
from fluoroscope.models.row_cache import Group, Layout, RowCache, Segment
from fluoroscope.models.row_reader import RowReader
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.skipped_blocks import BlockOutputs

_MAX_ROWS = 1024
_MAX_NUMBERS = 2**26
"""Probabilities that are held at once: half a gibibyte."""

_ELSE = "Sample with generate() to edit earlier ones."


class Screen:
    """A prompt that was read once, and what edits of its last position would change."""

    @torch.no_grad()
    def __init__(
        self,
        model: LanguageModel,
        prompt: str | tuple[int, ...],
        sampling: Sampling | None = None,
        positions: Positions = LAST,
    ) -> None:
        """`sampling` is the distribution whose probabilities are asked for, by default the
        model's own. `positions` are where edits act: `LAST`, or `LAST | GENERATED` for edits
        that also act while an answer is written.
        """
        if model.interventions:
            raise InterventionError(
                "A screen compares edits with the model as it is, and the model is being edited. "
                "Leave the `with steer(...)` block first."
            )
        self.model, self.sampling, self.positions = model, sampling or Sampling(), positions
        self.given, self.prompt = prompt, prompt_tokens(model, prompt)
        self._weights = _weights_of(model)
        self.reader = RowReader(model)
        self._outputs = BlockOutputs(model)
        spans = positions.spans(self.prompt, model.tokenizer)
        if spans[0][0] != len(self.prompt) - 1:
            raise InterventionError(
                f"A screen knows edits of the last position of a prompt, LAST or LAST | GENERATED; "
                f"got {positions}. {_ELSE}"
            )
        n = len(self.prompt)
        with self.reader.open():
            self.prefix: Segment | None = None
            if n > 1:
                job, _ = shortened(self.reader, Job(0, self.prompt, 0, n - 1))
                filled = prefill(self.reader, [job])
                self.prefix = filled.cache.segment(0, job.n_tokens, job.segment)
            with self._outputs.recording():
                last = prefill(self.reader, [Job(0, self.prompt, n - 1, n, self.prefix)])
        self._last = last.cache
        self.baseline: Float[Tensor, " vocab"] = self.sampling.probabilities(last.logits)[0]
        """Probabilities of the next token without edits."""

    @torch.no_grad()
    def next_tokens(self, edits: Sequence[EditSet] | TermBlock) -> Float[Tensor, "edits vocab"]:
        """Probabilities of the next token under each edit, in float64."""
        found = self.baseline.new_empty(len(edits), len(self.baseline))
        for rows, logits, _ in self._passes(edits, 0):
            found[rows] = self.sampling.probabilities(logits)
        return found

    @torch.no_grad()
    def decisions(
        self, edits: Sequence[EditSet] | TermBlock, tokens: Mapping[str, Sequence[int]]
    ) -> dict[str, Float[Tensor, " edits"]]:
        """Probability that the next token is one of a named set, under each edit."""
        names = list(tokens)
        for name in names:
            check_tokens(self.model, tokens[name], f"The set {name!r}")
        inside = self.baseline.new_zeros(len(self.baseline), len(names))
        for column, name in enumerate(names):
            inside[list(tokens[name]), column] = 1
        found = self.baseline.new_empty(len(edits), len(names))
        for rows, logits, _ in self._passes(edits, 0):
            found[rows] = self.sampling.probabilities_of(logits, inside)
        return {name: found[:, column] for column, name in enumerate(names)}

    @torch.no_grad()
    def answers(
        self, edits: Sequence[EditSet] | TermBlock, answers: Sequence[Answer]
    ) -> Float[Tensor, "edits answers"]:
        """Probability that the text begins with an answer, and does not go on to a longer one.

        Every answer is teacher-forced, and answers that begin alike share their beginning. Rows
        sum to at most 1; the rest is what is no answer.
        """
        tree = AnswerTree(self.model, self.given, answers)
        room = writable_context(self.model) - len(self.prompt)
        if tree.depth > room:
            raise InterventionError(
                f"The longest answer has {tree.depth + 1} tokens, and behind the "
                f"{len(self.prompt)} of the prompt {self.model.name} has room for {room + 1}."
            )
        found = self.baseline.new_empty(len(edits), len(answers))
        for rows, logits, cache in self._passes(edits, tree.depth, tree.width):
            found[rows] = tree.probabilities(
                self.sampling.probabilities(logits),
                cache,
                lambda *level, some=rows: self._read_on(some, *level),
            )
        return found

    def check_unchanged(self) -> None:
        """Raises `InterventionError` unless the model is as it was when the prompt was read."""
        if self.model.interventions:
            raise InterventionError("The model is being edited by something else than this screen.")
        if _weights_of(self.model) != self._weights:
            raise InterventionError(
                f"The weights of {self.model.name} have changed since this screen read its prompt. "
                "Make a new Screen."
            )

    def rows_per_pass(self, width: int = 1) -> int:
        """Edits that go through at once, each of which may become `width` rows."""
        return max(1, min(_MAX_ROWS, _MAX_NUMBERS // len(self.baseline)) // width)

    def _passes(
        self, edits: Sequence[EditSet] | TermBlock, depth: int, width: int = 1
    ) -> Iterator[tuple[Tensor, Float[Tensor, "rows vocab"], RowCache]]:
        """Numbers of edits, the logits behind the prompt, and a cache with room for `depth` tokens
        of an answer, of which there are up to `width` at once.
        """
        self.check_unchanged()
        intervention = self._intervention(edits)
        blocks = [intervention.first_block(number) for number in range(len(edits))]
        by_block = torch.tensor(blocks)
        n_rows = self.rows_per_pass(width)
        with self.reader.open(), self.model.intervened(intervention):
            for block in sorted(set(blocks)):
                for rows in torch.where(by_block == block)[0].split(n_rows):
                    cache = RowCache(len(rows), 1 + depth)
                    if depth:
                        # Blocks that are skipped write nothing, and answers look at them.
                        everywhere = torch.arange(len(rows), device=self.model.device)
                        cache.copy_from(self._last, torch.zeros_like(everywhere), everywhere, 1)
                    last = [self.prompt[-1]] * len(rows)
                    with self._outputs.skipping(block, len(rows)):
                        logits = self._read(rows, last, 0, cache)
                    yield rows, logits, cache

    def _intervention(self, edits: Sequence[EditSet] | TermBlock) -> BlockEdits | RowEdits:
        if isinstance(edits, TermBlock):
            return BlockEdits(self.model, edits, self.positions)
        found, last = RowEdits(self.model, edits, self.positions), len(self.prompt) - 1
        for number in range(len(edits)):
            # Edits of a list may have positions of their own.
            first = found.first_position(number, self.prompt)
            if first < last:
                raise InterventionError(
                    f"Edit {number} acts at position {first}, and a screen knows edits of the "
                    f"prompt's last position, {last}. {_ELSE}"
                )
        return found

    def _read_on(
        self, rows: Tensor, members: Tensor, tokens: Sequence[int], place: int, cache: RowCache
    ) -> Float[Tensor, "members vocab"]:
        logits = self._read(rows[members.cpu()], tokens, place, cache)
        return self.sampling.probabilities(logits)

    def _read(
        self, numbers: Tensor, tokens: Sequence[int], place: int, cache: RowCache
    ) -> Float[Tensor, "rows vocab"]:
        """One token a row, `place` tokens behind the prompt's last."""
        device, n_before = self.model.device, len(self.prompt) - 1
        own = torch.full((len(tokens), 1), place, device=device)
        layout = Layout(
            own=own,
            columns=own,
            width=place + 1,
            positions=own + n_before,
            starts=torch.full((len(tokens),), n_before, device=device),
            groups=[] if self.prefix is None else [Group(self.prefix, slice(None))],
        )
        a_pass = Pass(
            requests=tuple(numbers.tolist()),
            prompts=(self.prompt,) * len(tokens),
            positions=layout.positions,
            fired=torch.zeros(len(tokens), dtype=torch.int64, device=device),
            is_decoding=place > 0,
        )
        given = torch.tensor(tokens, device=device)[:, None]
        logits = self.reader.read(given, cache, layout, a_pass)
        self._check(a_pass, place)
        is_number = logits.amax(dim=-1).isfinite()
        if not bool(is_number.all()):
            number = a_pass.requests[int((~is_number).nonzero()[0])]
            raise NumericsError(
                f"The logits under edit {number} are NaN or infinite: it may be too large, or "
                f"{self.model.dtype} too small for this model."
            )
        return logits

    def _check(self, a_pass: Pass, place: int) -> None:
        """Every row must have been edited as often as a position here asks for."""
        (intervention,) = self.model.interventions
        n = len(self.prompt) + place
        # Rows of a block are alike, and may be many.
        few = a_pass.requests[:1] if isinstance(intervention, BlockEdits) else a_pass.requests
        wanted = [
            intervention.expected(row, self.prompt, n)
            - intervention.expected(row, self.prompt, n - 1)
            for row in few
        ]
        if not bool((a_pass.fired.cpu() == torch.tensor(wanted)).all()):
            raise InterventionError(
                f"Edits at position {n - 1} were applied {int(a_pass.fired.sum())} times to "
                f"{len(a_pass.fired)} rows: a hook did not fire. The effects are not exact."
            )


def _weights_of(model: LanguageModel) -> list[tuple[int, int]]:
    """Where each weight lies and how often it was written to, which takes no time to read."""
    return [
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in model.network.parameters()
    ]
