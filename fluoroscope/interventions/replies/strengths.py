"""How strongly to steer: the best strength at which replies are still language.

    guard = Guard(max_perplexity_ratio=2.0, max_norm_share=1.0, max_repetition=0.1)
    found = search_strengths([1, 2, 4, 8], judge, guard, n_refinements=2)

What is chosen by its score is flattered by it: judge on validation samples, and report what
other samples say of `found.best.strength`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from pydantic import PositiveFloat

from fluoroscope.core.config import Config
from fluoroscope.core.errors import ConfigError, NumericsError

_EQUAL = 1e-9
"""Scores that differ by less are equal, and the weaker strength wins."""


class Judged(NamedTuple):
    """What replies at one strength are like; None where it was not measured, as replies of one
    token have no perplexity.
    """

    score: float
    """More is better."""

    perplexity_ratio: float | None = None
    """Perplexity of the replies under the unsteered model, divided by that of unsteered ones."""

    norm_share: float | None = None
    """Norm of what is added, in units of a typical activation's."""

    repetition: float | None = None


class Guard(Config):
    """What steering may cost replies in coherence."""

    max_perplexity_ratio: PositiveFloat = 2.0
    """Largest perplexity of steered replies, divided by that of unsteered ones."""

    max_norm_share: PositiveFloat = 1.0
    """Largest norm of what is added, divided by a typical activation's."""

    max_repetition: PositiveFloat = 0.1
    """Largest share of repeated word sequences beyond that of unsteered replies."""

    def check(self, judged: Judged, unsteered: Judged) -> str | None:
        """Why replies are refused, or None."""
        repeated = unsteered.repetition or 0.0
        limits = [
            ("the perplexity ratio", judged.perplexity_ratio, self.max_perplexity_ratio),
            ("the norm of what is added", judged.norm_share, self.max_norm_share),
            ("the share of repetition", judged.repetition, self.max_repetition + repeated),
        ]
        reasons = [
            f"{name} is {value:.3g}, above {limit:.3g}"
            for name, value, limit in limits
            # So is a NaN refused.
            if value is not None and not value <= limit + _EQUAL
        ]
        return "; ".join(reasons) or None


class Tried(NamedTuple):
    strength: float
    judged: Judged
    refused: str | None
    """Why it may not be used."""


class StrengthSearch(NamedTuple):
    best: Tried
    unsteered: Tried

    tried: tuple[Tried, ...]
    """All, by strength."""

    is_any_better: bool
    """Whether the best is better than no steering, and so not strength 0."""


def search_strengths(
    strengths: Sequence[float],
    judge: Callable[[float], Judged],
    guard: Guard,
    n_refinements: int = 0,
) -> StrengthSearch:
    """The best admissible strength, the weaker of equals.

    Strength 0 is judged first, and is always admissible. Each refinement tries the middle between
    the best so far and its neighbours on either side, refused or not.
    """
    _check(strengths, n_refinements)
    zero = Tried(0.0, _judged(judge, 0.0), None)
    tried = {0.0: zero}

    def try_all(wanted: Sequence[float]) -> None:
        for strength in wanted:
            if strength not in tried:
                judged = _judged(judge, strength)
                tried[strength] = Tried(strength, judged, guard.check(judged, zero.judged))

    try_all([float(strength) for strength in strengths])
    for _ in range(n_refinements):
        try_all(_middles(_best(list(tried.values())).strength, sorted(tried)))
    best = _best(list(tried.values()))
    return StrengthSearch(
        best=best,
        unsteered=zero,
        tried=tuple(tried[strength] for strength in sorted(tried)),
        is_any_better=best.strength != 0,
    )


def _best(tried: Sequence[Tried]) -> Tried:
    allowed = [one for one in tried if one.refused is None]
    highest = max(one.judged.score for one in allowed)
    equal = [one for one in allowed if one.judged.score >= highest - _EQUAL]
    return min(equal, key=lambda one: (abs(one.strength), one.strength))


def _middles(best: float, ordered: list[float]) -> list[float]:
    place = ordered.index(best)
    beside = ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]
    return [(best + other) / 2 for other in beside]


def _judged(judge: Callable[[float], Judged], strength: float) -> Judged:
    judged = judge(strength)
    if not math.isfinite(judged.score):
        raise NumericsError(f"The score at strength {strength:g} is {judged.score}, not a number.")
    return judged


def _check(strengths: Sequence[float], n_refinements: int) -> None:
    is_rising = all(one < other for one, other in pairwise(strengths))
    if not strengths or not all(map(math.isfinite, strengths)) or not is_rising:
        raise ConfigError(
            f"Strengths are finite numbers in rising order, none twice; got {list(strengths)}."
        )
    if not any(strengths):
        raise ConfigError("Only strength 0 was given, which steers nothing; give others.")
    if n_refinements < 0:
        raise ConfigError(f"n_refinements must be 0 or more, got {n_refinements}.")
