"""Trials: what settings do to what is to be forgotten and to what is to be kept, on the texts and
samples that settings are chosen on.

A reply depends on its own text alone. So what clamping does where a detector calls for it is put
together from what it does everywhere and from what the model says untreated, and every detector is
tried at the price of none.

Axes: samples, texts; sums are those of `drift.text_sums`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import Asking, reply_all
from fluoroscope.interventions.replies.drift import text_sums
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.interventions.steering import steer
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.studies.unlearning.sets import ForgetSets, Passage, chance


class Flags(NamedTuple):
    """Which of the trials' samples and texts a detector flags."""

    forget: Bool[np.ndarray, " samples"]
    retain: Bool[np.ndarray, " kept"]
    forget_texts: Bool[np.ndarray, " texts"]
    retain_texts: Bool[np.ndarray, " others"]


class Outcome(NamedTuple):
    """Scores of samples, and sums over texts; empty of what there is none."""

    forget: Float[np.ndarray, " samples"]
    retain: Float[np.ndarray, " kept"]
    forget_texts: Float[np.ndarray, "texts 4"]
    retain_texts: Float[np.ndarray, "others 4"]

    def where(self, flags: Flags, untreated: "Outcome") -> "Outcome":
        """Itself where a text is flagged, and what is untreated elsewhere."""
        parts = zip(self, flags, untreated, strict=True)
        return Outcome(
            *(np.where(flag if a.ndim == 1 else flag[:, None], a, b) for a, flag, b in parts)
        )


class Judged(NamedTuple):
    """Accuracies, or perplexity over that of the untreated model; None of what is not asked."""

    forget: float | None
    retain: float | None
    forget_ratio: float | None
    retain_ratio: float | None
    left: float
    """Of what is to be forgotten: accuracy above chance, or the inverse of the ratio."""

    lost: float
    """Of what is to be kept: accuracy, or the rise of perplexity, whichever is more."""

    @property
    def shortfall(self) -> float:
        return max(0.0, self.left) + max(0.0, self.lost)


@dataclass(frozen=True, eq=False)
class Ground:
    """What settings are tried on. Texts are read where no samples tell what is forgotten."""

    model: LanguageModel
    sets: ForgetSets
    asking: Asking | None

    @cached_property
    def texts(self) -> tuple[list[Passage], list[Passage]]:
        if self.sets.forget_validation:
            return [], []
        return list(self.sets.forget), list(self.sets.retain)

    @cached_property
    def untreated(self) -> Outcome:
        return self.outcome(self.model, {})

    @cached_property
    def everything(self) -> Flags:
        return Flags(*(np.ones(len(one), dtype=bool) for one in self.untreated))

    def prompts(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """What a detector sees of each, in the order of `Flags`."""
        ask = self.asking.prompt if self.asking else lambda sample: sample.prompt
        forget, retain = self.sets.forget_validation, self.sets.retain_validation
        return (
            [ask(one) for one in forget],
            [ask(one) for one in retain],
            [one.prompt for one in self.texts[0]],
            [one.prompt for one in self.texts[1]],
        )

    def outcome(self, model: LanguageModel, edits: EditSet) -> Outcome:
        """Of a model, or of this one with edits in every text."""
        forget, retain = self.sets.forget_validation, self.sets.retain_validation
        return Outcome(
            self._scores(model, forget, edits),
            self._scores(model, retain, edits),
            *(self._sums(model, side, edits) for side in self.texts),
        )

    def judged(self, found: Outcome) -> Judged:
        before = self.untreated
        forget, retain = _mean(found.forget), _mean(found.retain)
        forget_ratio, retain_ratio = _ratio(found.forget_texts), _ratio(found.retain_texts)
        if forget is not None:
            left = forget - chance(self.sets.forget_validation)
        else:
            left = 1 / forget_ratio if forget_ratio else 1.0
        losses = [retain_ratio - 1] if retain_ratio is not None else []
        kept = _mean(before.retain)
        if retain is not None and kept is not None:
            losses.append(kept - retain)
        return Judged(forget, retain, forget_ratio, retain_ratio, left, max(losses, default=0.0))

    def _scores(
        self, model: LanguageModel, samples: Sequence[Sample], edits: EditSet
    ) -> Float[np.ndarray, " samples"]:
        if not samples or self.asking is None:
            return np.empty(0)
        replies = reply_all(model, samples, self.asking, edits)
        return np.array([reply.score.value for reply in replies])

    def _sums(
        self, model: LanguageModel, passages: Sequence[Passage], edits: EditSet
    ) -> Float[np.ndarray, "texts 4"]:
        if not passages:
            return np.empty((0, 4))

        def after(_places, tokens, mask):
            with steer(model, edits):
                return model.forward(tokens, mask)

        return text_sums(self.model, [one.text for one in passages], after)


def best(judged: Sequence[Judged], margin: float) -> int:
    """The place of what forgets most of those that lose no more than the margin; of what is
    nearest to both, if all lose more. Of equal ones the first.
    """
    within = [place for place, one in enumerate(judged) if one.lost <= margin + 1e-9]
    if within:
        return min(within, key=lambda place: (max(0.0, judged[place].left), place))
    return min(range(len(judged)), key=lambda place: (judged[place].shortfall, place))


def _mean(scores: Float[np.ndarray, " samples"]) -> float | None:
    return float(scores.mean()) if len(scores) else None


def _ratio(sums: Float[np.ndarray, "texts 4"]) -> float | None:
    """Perplexity after over perplexity before."""
    if not len(sums):
        return None
    # What is beyond all reason is as good as forgotten; a number beyond floats is none.
    return math.exp(min(50.0, float((sums[:, 2] - sums[:, 1]).sum() / sums[:, 3].sum())))
