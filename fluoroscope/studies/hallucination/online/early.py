"""How early a detector knows: AUROC after so many tokens, and after a share of the answer.

By tokens, fewer answers are left the later it is, and those that are left may be easier or harder;
so each row says how many they are. By share, all answers are in every row: but how long an answer
will be is known afterwards only.

Axes: n answers, p rows (prefixes of all of them), r repeats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.studies.hallucination.detection.comparisons import compare
from fluoroscope.studies.hallucination.detection.scores import Scored, scored

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
AFTER = (*range(9), 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""Tokens after which is judged: all of the first, then some."""

By = Literal["tokens", "share"]


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Scores after each token of answers, none of which their detector was trained on."""

    n_tokens: Int[np.ndarray, " n"]
    labels: Bool[np.ndarray, " n"]
    groups: Shaped[np.ndarray, " n"]
    folds: Int[np.ndarray, "r n"]
    scores: Float[np.ndarray, "r p"]
    """Row t of an answer is after t tokens; answers lie one behind the other."""

    uncertainty: Float[np.ndarray, "r p"]
    """Of a detector that sees no tracks."""

    def at(self, answers: Int[np.ndarray, " some"], tokens: Int[np.ndarray, " some"]) -> "_Pair":
        """Both detectors, of these answers after so many tokens each."""
        starts = np.concatenate([[0], np.cumsum(self.n_tokens + 1)[:-1]])
        rows = starts[answers] + tokens
        labels, groups, folds = self.labels[answers], self.groups[answers], self.folds[:, answers]
        return _Pair(
            scored(self.scores[:, rows], labels, groups, folds),
            scored(self.uncertainty[:, rows], labels, groups, folds),
        )


class _Pair(NamedTuple):
    both: Scored
    uncertainty: Scored


class _Moment(NamedTuple):
    by: By
    at: float
    answers: Int[np.ndarray, " some"]
    tokens: Int[np.ndarray, " some"]


def how_early(prefixes: Prefixes, seed: int, n_resamples: int = 2000) -> pl.DataFrame:
    """A row a moment: answers, groups, share made up; AUROC of tracks and uncertainty together
    (`auroc`), of uncertainty alone, and of their difference, each with its interval over groups.

    Moments with fewer than 10 groups of either label are left out.
    """
    rows = []
    for moment in _moments(prefixes):
        pair = prefixes.at(moment.answers, moment.tokens)
        found = compare(pair.both, pair.uncertainty, seed, n_resamples)
        rows.append(
            (
                moment.by,
                moment.at,
                len(moment.answers),
                len(np.unique(prefixes.groups[moment.answers])),
                float(prefixes.labels[moment.answers].mean()),
                *found.one,
                *found.other,
                *found.difference,
            )
        )
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def share_tokens(n_tokens: Int[np.ndarray, " n"], share: float) -> Int[np.ndarray, " n"]:
    """Tokens of each answer after that share of it, halves up."""
    return np.floor(share * n_tokens + 0.5).astype(np.int64)


def _moments(prefixes: Prefixes) -> Iterator[_Moment]:
    n = prefixes.n_tokens
    for after in AFTER:
        answers = np.flatnonzero(n >= after)
        if _has_enough(prefixes, answers):
            yield _Moment("tokens", float(after), answers, np.full(len(answers), after))
    everyone = np.arange(len(n))
    if _has_enough(prefixes, everyone):
        for share in SHARES:
            yield _Moment("share", share, everyone, share_tokens(n, share))


def _has_enough(prefixes: Prefixes, answers: Int[np.ndarray, " some"]) -> bool:
    labels, groups = prefixes.labels[answers], prefixes.groups[answers]
    counts = [len(np.unique(groups[labels == label])) for label in (False, True)]
    return min(counts) >= MIN_UNITS


_SCHEMA = {"by": pl.String, "at": pl.Float64, "answers": pl.Int64, "groups": pl.Int64}
_SCHEMA |= dict.fromkeys(("made_up", "auroc", "auroc_low", "auroc_high"), pl.Float64)
_SCHEMA |= dict.fromkeys(("uncertainty", "uncertainty_low", "uncertainty_high"), pl.Float64)
_SCHEMA |= dict.fromkeys(("difference", "low", "high"), pl.Float64)
