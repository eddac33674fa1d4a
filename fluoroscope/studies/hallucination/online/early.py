"""How early a detector knows: AUROC after so many tokens, and at both ends of every answer.

Fewer answers are left the later it is, and those that are left may be easier or harder; so each
row says how many they are. Nothing is judged after a share of the answer: rows of one share differ
in their number of tokens, which is a column, and would tell how long the answer is going to be.
After the last token its length is known to everyone.

Axes: n answers, p rows (prefixes of all of them), r repeats.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.studies.hallucination.detection.comparisons import Comparison, compare
from fluoroscope.studies.hallucination.detection.scores import Scored, scored

AFTER = (*range(9), 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""Tokens after which is judged: all of the first, then some."""


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


def how_early(prefixes: Prefixes, seed: int, n_resamples: int = 2000) -> pl.DataFrame:
    """A row a moment: answers, groups, share made up; AUROC of tracks and uncertainty together
    (`auroc`), of uncertainty alone, and of their difference, each with its interval over groups.

    Moments with fewer than 10 groups of either label are left out.
    """
    rows = []
    for after in AFTER:
        answers = np.flatnonzero(prefixes.n_tokens >= after)
        if not _has_enough(prefixes, answers):
            continue
        pair = prefixes.at(answers, np.full(len(answers), after))
        found = compare(pair.both, pair.uncertainty, seed, n_resamples)
        rows.append(
            (
                after,
                len(answers),
                len(np.unique(prefixes.groups[answers])),
                float(prefixes.labels[answers].mean()),
                *found.one,
                *found.other,
                *found.difference,
            )
        )
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def at_ends(prefixes: Prefixes, seed: int, n_resamples: int = 2000) -> dict[str, Comparison]:
    """Of all answers, `before` the first token and after the `last`: tracks and uncertainty
    together against uncertainty alone. Empty where a label has fewer than 10 groups.
    """
    everyone = np.arange(len(prefixes.n_tokens))
    if not _has_enough(prefixes, everyone):
        return {}
    ends = {"before": np.zeros_like(prefixes.n_tokens), "last": prefixes.n_tokens}
    pairs = {name: prefixes.at(everyone, tokens) for name, tokens in ends.items()}
    return {
        name: compare(pair.both, pair.uncertainty, seed, n_resamples)
        for name, pair in pairs.items()
    }


def _has_enough(prefixes: Prefixes, answers: Int[np.ndarray, " some"]) -> bool:
    labels, groups = prefixes.labels[answers], prefixes.groups[answers]
    counts = [len(np.unique(groups[labels == label])) for label in (False, True)]
    return min(counts) >= MIN_UNITS


_SCHEMA: dict[str, type[pl.DataType]] = dict.fromkeys(("tokens", "answers", "groups"), pl.Int64)
_SCHEMA |= dict.fromkeys(("made_up", "auroc", "auroc_low", "auroc_high"), pl.Float64)
_SCHEMA |= dict.fromkeys(("uncertainty", "uncertainty_low", "uncertainty_high"), pl.Float64)
_SCHEMA |= dict.fromkeys(("difference", "low", "high"), pl.Float64)
