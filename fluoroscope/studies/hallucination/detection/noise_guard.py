"""Whether an evaluation can be fooled: noise must score 0.5 under the protocol that is used.

Each text gets random numbers of its own, and the same ones wherever it stands. They say nothing of
truth, so a detector of them is at chance, unless it meets a text again that it was trained on.
Of TruthfulQA split by pairs (each true answer once beside every false one) noise scores 0.98.

Draws of noise are independent of each other, so their spread says all about their mean: it needs no
resampling of rows, which is too narrow at chance (see `scores.py`).

Axes: n rows, t texts, r draws.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fluoroscope.core.errors import MismatchError
from fluoroscope.core.intervals import MIN_UNITS, Interval, mean_interval
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.studies.hallucination.detection.cross_validation import (
    CrossValidation,
    FoldsOf,
    LeakError,
    out_of_fold,
)
from fluoroscope.studies.hallucination.detection.detectors import Detector, Memory
from fluoroscope.studies.hallucination.detection.scores import Scored, aurocs, checked_labels

WIDTH = 26
"""Random numbers a text, as many as the original has features."""

_N_SHOWN = 3
_SECOND_LOOK = 4


class NoiseCheck(NamedTuple):
    """What noise scored."""

    auroc: Interval
    """Its mean over draws."""

    n_draws: int
    n_shared: int
    """Texts that stand in more than one fold of the first repeat; each can be known again."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows in a canonical order, and which text each has."""

    labels: Bool[np.ndarray, " n"]
    groups: Shaped[np.ndarray, " n"]
    group_index: Int[np.ndarray, " n"]
    names: list[str]
    text: Int[np.ndarray, " n"]


def check_noise(
    groups: Shaped[np.ndarray, " n"],
    labels: Shaped[np.ndarray, " n"],
    texts: list[str],
    folds_of: FoldsOf,
    seed: int,
    n_folds: int = 5,
    n_repeats: int = 5,
    n_draws: int = 20,
    detector: Detector | None = None,
    ids: Shaped[np.ndarray, " n"] | None = None,
) -> NoiseCheck:
    """What noise scores in the folds that this seed gives; raises `LeakError` if not 0.5.

    `texts` are what the features are made from (prompt and answer, or the answer alone); case and
    blanks make no difference. `detector` is the one that remembers most unless another is given.
    An honest protocol misses 0.5 in one of twenty looks, so a miss is looked at again with four
    times as many fresh draws, and refused only if it stays: one honest protocol in four hundred.
    """
    protocol = CrossValidation(seed, n_folds, n_repeats, folds_of)
    rows = _canonical(groups, labels, texts, ids)
    folds = np.stack(
        [protocol.folds(rows.groups, rows.labels, repeat) for repeat in range(n_repeats)]
    )
    judge = Memory() if detector is None else detector
    shared = _shared_texts(rows, folds[0])
    start = 0
    for n in (max(n_draws, MIN_UNITS), _SECOND_LOOK * max(n_draws, MIN_UNITS)):
        found = noise_auroc(rows, folds, judge, seed, range(start, start + n))
        if found.low <= 0.5 <= found.high:
            return NoiseCheck(found, n, len(shared))
        start += n
    raise LeakError(_accusation(found, rows, folds[0], shared))


def noise_auroc(
    rows: _Rows, folds: Int[np.ndarray, "r n"], detector: Detector, seed: int, draws: range
) -> Interval:
    """Mean AUROC of noise over draws, each in the folds of one repeat, in turn."""
    every_group = np.ones((1, rows.group_index.max() + 1))
    found = []
    for draw in draws:
        fold = folds[draw % len(folds)]
        noise = stream(seed, "noise", draw).standard_normal((len(rows.names), WIDTH))
        own = derive_seed(seed, "detector of noise", draw)
        scores, _ = out_of_fold(detector, noise[rows.text], rows.labels, rows.groups, fold, own)
        judged = Scored(scores[None], rows.labels, rows.group_index, fold[None])
        found.append(float(aurocs(judged, every_group)[0]))
    return mean_interval(np.array(found))


def merged_groups(groups: Shaped[np.ndarray, " n"], texts: list[str]) -> Int[np.ndarray, " n"]:
    """Groups such that none shares a text with another: those that do become one."""
    names, text = distinct_texts(texts)
    group_names, group = np.unique(groups, return_inverse=True)
    n_groups, n = len(group_names), len(group_names) + len(names)
    links = coo_array((np.ones(len(text)), (group, n_groups + text)), shape=(n, n))
    return connected_components(links, directed=False)[1][group].astype(np.int64)


def distinct_texts(texts: list[str]) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """The different texts, and which of them each row has; case and blanks make no difference."""
    names, text = np.unique(
        [" ".join(text.casefold().split()) for text in texts], return_inverse=True
    )
    return names.tolist(), text


def _canonical(
    groups: Shaped[np.ndarray, " n"],
    labels: Shaped[np.ndarray, " n"],
    texts: list[str],
    ids: Shaped[np.ndarray, " n"] | None,
) -> _Rows:
    is_made_up = checked_labels(labels)
    if not len(groups) == len(is_made_up) == len(texts):
        raise MismatchError(
            f"Groups, labels and texts must be of the same rows, got {len(groups)}, "
            f"{len(is_made_up)} and {len(texts)}."
        )
    order = np.arange(len(texts)) if ids is None else np.argsort(ids, kind="stable")
    names, text = distinct_texts([texts[i] for i in order])
    of_group = np.asarray(groups)[order]
    index = np.unique(of_group, return_inverse=True)[1]
    return _Rows(is_made_up[order], of_group, index, names, text)


def _shared_texts(rows: _Rows, fold: Int[np.ndarray, " n"]) -> Int[np.ndarray, " some"]:
    """Texts that stand in two folds, those in most rows first."""
    places = np.unique(np.stack([rows.text, fold]), axis=1)
    n_folds = np.bincount(places[0])
    is_shared = np.flatnonzero(n_folds > 1)
    n_rows = np.bincount(rows.text)[is_shared]
    return is_shared[np.argsort(-n_rows, kind="stable")]


def _accusation(
    found: Interval,
    rows: _Rows,
    fold: Int[np.ndarray, " n"],
    shared: Int[np.ndarray, " some"],
) -> str:
    said = (
        f"Random numbers score an AUROC of {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] "
        "under this protocol, where 0.5 was expected: one can score here and know nothing of truth."
    )
    if not len(shared):
        return (
            f"{said} No text is on both sides of a split, so something else leaks: look at what "
            "`folds_of` does with labels, and at what the detector is shown."
        )
    lines = [f"  {_example(rows, fold, int(text))}" for text in shared[:_N_SHOWN]]
    n_rows = int(np.isin(rows.text, shared).sum())
    return "\n".join(
        [
            f"{said} {len(shared)} texts ({n_rows} of {len(fold)} rows) are in more than one fold, "
            "in training and in test:",
            *lines,
            "Put all rows of a text, and all answers to a question, into one group "
            "(`merged_groups` does).",
        ]
    )


def _example(rows: _Rows, fold: Int[np.ndarray, " n"], text: int) -> str:
    where = np.flatnonzero(rows.text == text)
    name = rows.names[text]
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    one = where[0]
    other = where[fold[where] != fold[one]][0]
    return (
        f"{shown!r}: group {rows.groups[one]!s} in fold {fold[one]}, group "
        f"{rows.groups[other]!s} in fold {fold[other]}"
    )
