"""A generation with its running score: after every token, how likely the answer is made up.

A `Watcher` does for one token what the study does for whole answers, by the same code: read it,
encode it, link and track what is active, describe the tracks, and let the detector score what is
known by then. Nothing before the token is read again.

Axes: n tokens so far, p positions, k metrics, l layers, d columns.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fluoroscope.core.errors import MismatchError, NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prepare
from fluoroscope.models.sampling import Sampling, row_luck
from fluoroscope.models.stopping import StopTable, continuation
from fluoroscope.models.texts import Request
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.studies.hallucination.metrics.describe import metrics
from fluoroscope.studies.hallucination.online.columns import COLUMNS, UNCERTAINTY, prefix_columns
from fluoroscope.studies.hallucination.online.detector import OnlineDetector
from fluoroscope.studies.hallucination.online.stepping import OneRow, Seen
from fluoroscope.studies.hallucination.signals.tokens import AnswerTokens, answer_tokens
from fluoroscope.studies.hallucination.tracking.detections import Active, detect
from fluoroscope.studies.hallucination.tracking.trackers import LinkModel, Tracker


@dataclass(frozen=True, eq=False)
class Tracking:
    """How the latents of a token become tracks, as in the run that the detector is of."""

    association: LinkModel
    scales: Float[np.ndarray, "l d_sae"]
    tracker: Tracker
    top: int


class Watched(NamedTuple):
    """What is known after a token; the first of an answer is before all tokens."""

    n_tokens: int
    token: int | None
    """None before the first."""

    text: str
    """What the token adds to the text."""

    score: float
    """Probability that the answer is made up, as the run's answers were."""

    logprob: float
    """Of the token, in nats; NaN before the first."""

    entropy: float
    """Nats of the distribution that the token was drawn from; before the first, of the one that
    the first will be drawn from."""

    n_tracks: int
    """Tracks through the layers at this token."""

    margin: float
    """Nats by which the tracker's best hypothesis leads, where it leads least; 20 at most."""

    pushes: Mapping[str, float]
    """Column -> what it adds to the log-odds, beside the mean of the run; the largest first."""

    columns: Float64[np.ndarray, " d"]
    """As in `prefix_columns`."""

    @property
    def by_kind(self) -> tuple[float, float]:
        """What uncertainty adds to the log-odds, and what tracks add."""
        uncertain = sum(self.pushes[name] for name in UNCERTAINTY)
        return uncertain, sum(self.pushes.values()) - uncertain


class Watcher:
    """Scores answers of one model, one token after the other."""

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[HookPoint, SparseAutoencoder],
        tracking: Tracking,
        detector: OnlineDetector,
    ) -> None:
        if len(saes) != len(tracking.scales):
            raise MismatchError(
                f"The tracker links latents of {len(tracking.scales)} layers, got SAEs of "
                f"{len(saes)}; give those that the detector was made with."
            )
        if detector.names != COLUMNS:
            raise MismatchError(
                f"The detector learnt {len(detector.names)} columns, and this version makes "
                f"{len(COLUMNS)} or others. Make its run anew."
            )
        self.model, self.saes = model, dict(sorted(saes.items()))
        self.tracking, self.detector = tracking, detector

    def write(self, request: Request, sampling: Sampling) -> Iterator[Watched]:
        """Generates, and scores each token as it is drawn: the tokens are those of `generate`.

        What a token adds before a stop string in it is read by itself, as a study reads it.
        """
        prepared = prepare(self.model, [request])[0]
        rule = prepared.rule
        stops = StopTable(self.model.tokenizer, self.model.vocab_size, [rule], self.model.device)
        luck = torch.from_numpy(row_luck(prepared.seed, prepared.limit)).to(self.model.device)
        answer = _Answer(self, prepared.prompt, prepared.limit + 1)
        last = answer.begin()
        yield last
        drawn: list[int] = []
        text = ""
        for number in range(prepared.limit):
            token = int(sampling.choose(answer.logits[None], luck[number : number + 1])[0])
            if bool(stops.is_stop_token[0, token]):
                return
            drawn.append(token)
            said = continuation(self.model.tokenizer, prepared.prompt, drawn)
            cut = stops.cut(rule, said) if bool(stops.may_complete[0, token]) else None
            if cut is not None:
                read = (*prepared.prompt, *drawn[:-1])
                yield from self._rest(answer, read, request.prompt, said[:cut], text, last)
                return
            last = answer.read(token, said[len(text) :])
            text = said
            yield last

    def follow(self, answer: AnswerTokens) -> Iterator[Watched]:
        """Scores an answer that is there already, as if it were being written."""
        prompt, rest = answer.tokens[: answer.n_prompt], answer.tokens[answer.n_prompt :]
        reading = _Answer(self, prompt, len(rest))
        yield reading.begin()
        text = ""
        for number, token in enumerate(rest, start=1):
            said = continuation(self.model.tokenizer, prompt, rest[:number])
            yield reading.read(token, said[len(text) :])
            text = said

    def described(self, seen: Seen) -> tuple[int, dict[str, float]]:
        """How many tracks lead to a token, and what they are like."""
        tracking = self.tracking
        active = [self._active(point, seen.states[point]) for point in self.saes]
        detections = detect(active, tracking.scales, tracking.top)
        links = tracking.association.links(detections)
        tracks = tracking.tracker.track(links)
        return len(tracks), metrics(links, tracks, detections.activations)

    def _active(self, point: HookPoint, state: Float[Tensor, "1 d_model"]) -> Active:
        sae = self.saes[point]
        with torch.no_grad():
            found = sae.sparse_encode(state.to(sae.W_dec))
        return found.indices.cpu().numpy(), found.values.float().cpu().numpy()

    def _rest(
        self,
        answer: "_Answer",
        read: tuple[int, ...],
        prompt: str | tuple[int, ...],
        whole: str,
        text: str,
        last: Watched,
    ) -> Iterator[Watched]:
        """What the token that brought a stop string has of the answer itself."""
        rest = whole[len(text) :]
        if not rest.strip():
            return
        # Of a prompt that is tokens there is no text to be cut anew.
        is_text = isinstance(prompt, str)
        tokens = answer_tokens(self.model, prompt, whole).tokens if is_text else read
        if tokens[: len(read)] != read or len(tokens) != len(read) + 1:
            # The tokenizer cuts the shortened text otherwise: there is no token to be read here.
            yield last._replace(text=rest)
            return
        yield answer.read(tokens[-1], rest)


class _Answer:
    """One answer, while it is being read."""

    def __init__(self, watcher: Watcher, prompt: tuple[int, ...], n_tokens: int) -> None:
        self._watcher = watcher
        self._row = OneRow(watcher.model, list(watcher.saes), prompt, n_tokens)
        self._shares = torch.empty(0)
        self._logprobs: list[float] = []
        self._entropies: list[float] = []
        """One more than tokens: the last is of the token that comes next."""
        self._metrics: list[list[float]] = []
        self.logits = torch.empty(0)

    def begin(self) -> Watched:
        return self._watched(self._row.read_prompt(), None, "")

    def read(self, token: int, text: str) -> Watched:
        self._logprobs.append(float(self._shares[token]))
        return self._watched(self._row.read(token), token, text)

    def _watched(self, seen: Seen, token: int | None, text: str) -> Watched:
        self._turn(seen)
        n_tracks, found = self._watcher.described(seen)
        self._metrics.append(list(found.values()))
        n = len(self._logprobs)
        columns = prefix_columns(
            np.array(self._logprobs),
            np.array(self._entropies[: max(n, 1)]),
            np.array(self._metrics),
        )[-1:]
        detector = self._watcher.detector
        pushes = zip(detector.names, detector.contributions(columns)[0].tolist(), strict=True)
        return Watched(
            n_tokens=n,
            token=token,
            text=text,
            score=float(detector.scores(columns)[0]),
            logprob=self._logprobs[-1] if n else math.nan,
            entropy=self._entropies[max(n, 1) - 1],
            n_tracks=n_tracks,
            margin=found["margin_min"],
            pushes=dict(sorted(pushes, key=lambda one: -abs(one[1]))),
            columns=columns[0],
        )

    def _turn(self, seen: Seen) -> None:
        """What comes next, as the model has it: at temperature 1, from float32 on."""
        logits = seen.logits.to(torch.promote_types(seen.logits.dtype, torch.float32))
        self.logits, self._shares = seen.logits, logits.log_softmax(dim=-1)
        entropy = float(-(self._shares.exp() * self._shares).sum())
        if not math.isfinite(entropy):
            raise NumericsError(
                f"The logits behind token {len(self._logprobs)} of the answer are not finite; "
                "load the model in float32 or bfloat16."
            )
        self._entropies.append(entropy)
