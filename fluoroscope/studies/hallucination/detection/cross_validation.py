"""Scores of rows that a detector has not seen: repeated K-fold by groups.

A group (a question, with all its answers) is never on both sides of a split: where it is, anything
that knows a text again scores like a detector. Everything a detector does with data (filling,
scaling, tuning) is done with training rows alone. Rows are worked on in the order of their ids,
so how they lie in a file changes nothing.

Axes: n rows, r repeats.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from fluoroscope.core.errors import ConfigError, MismatchError, UserError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.data.answers.splits import grouped_folds
from fluoroscope.studies.hallucination.detection.detectors import Detector, Fitted
from fluoroscope.studies.hallucination.detection.scores import Scored, checked_labels, scored

_SHOWN = 3

FoldsOf = Callable[
    [Shaped[np.ndarray, " n"], Bool[np.ndarray, " n"], int, int], Int[np.ndarray, " n"]
]
"""(groups, labels, n_folds, seed) -> the fold of each row."""


class LeakError(UserError):
    """What a detector is tested on was within its reach in training."""


@dataclass(frozen=True, eq=False)
class OutOfFold(Scored):
    """Scores of a cross-validation, and what was done to columns."""

    notes: tuple[str, ...] = ()
    """A sentence for the report; none where no column needed anything."""


def whole_groups(
    groups: Shaped[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], n_folds: int, seed: int
) -> Int[np.ndarray, " n"]:
    """The folds of `grouped_folds`: no group in two, labels spread as evenly as that allows."""
    names = [str(group) for group in groups]
    fold = np.empty(len(labels), np.int64)
    for number, split in enumerate(grouped_folds(names, labels.astype(np.int64), n_folds, seed)):
        fold[split.test] = number
    return fold


@dataclass(frozen=True)
class CrossValidation:
    """How a detector is judged; whatever is compared has to be judged by the same."""

    seed: int = 0
    n_folds: int = 5
    n_repeats: int = 5
    folds_of: FoldsOf = whole_groups

    def folds(
        self, groups: Shaped[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], repeat: int
    ) -> Int[np.ndarray, " n"]:
        """Of one repeat, checked: no group is in two, and each can be trained without."""
        _check_groups(groups, labels, self.n_folds)
        seed = derive_seed(self.seed, "folds", repeat)
        fold = np.asarray(self.folds_of(groups, labels, self.n_folds, seed), np.int64)
        _check_folds(fold, groups, labels, self.n_folds)
        return fold


def cross_validate(
    detector: Detector,
    features: Shaped[np.ndarray, "n ..."],
    labels: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    protocol: CrossValidation,
    ids: Shaped[np.ndarray, " n"] | None = None,
    names: Sequence[str] = (),
) -> OutOfFold:
    """Each row scored once in each repeat, by a detector that saw nothing of its fold.

    `ids` name the rows, uniquely; without them the order of the rows has a say. `names` are those
    of the columns, for the notes.
    """
    is_true, order = checked_labels(labels), _canonical(ids, len(labels))
    _check_same_rows(features, labels, groups)
    x, y, of_group = features[order], is_true[order], np.asarray(groups)[order]
    scores = np.empty((protocol.n_repeats, len(y)))
    folds = np.empty(scores.shape, np.int64)
    fits: list[Fitted] = []
    for repeat in range(protocol.n_repeats):
        folds[repeat, order] = fold = protocol.folds(of_group, y, repeat)
        seed = derive_seed(protocol.seed, "detector", repeat)
        scores[repeat, order], fitted = out_of_fold(detector, x, y, of_group, fold, seed)
        fits += fitted
    found = scored(scores, is_true, groups, folds)
    return OutOfFold(found.scores, found.labels, found.groups, found.folds, _notes(fits, names))


def without_training(
    score: Float[np.ndarray, " n"],
    labels: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    protocol: CrossValidation,
    ids: Shaped[np.ndarray, " n"] | None = None,
) -> Scored:
    """A number of each row as it is, high where an answer is suspect, in the folds that
    `cross_validate` judges detectors in.
    """
    is_true, order = checked_labels(labels), _canonical(ids, len(labels))
    _check_same_rows(score, labels, groups)
    folds = np.empty((protocol.n_repeats, len(order)), np.int64)
    for repeat in range(protocol.n_repeats):
        folds[repeat, order] = protocol.folds(np.asarray(groups)[order], is_true[order], repeat)
    return scored(score, is_true, groups).in_folds(folds)


def out_of_fold(
    detector: Detector,
    x: Shaped[np.ndarray, "n ..."],
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    seed: int,
) -> tuple[np.ndarray, list[Fitted]]:
    """Scores of each fold by a detector that was fitted on the others, and those detectors."""
    scores = np.full(len(labels), np.nan)
    fits = []
    for number in np.unique(fold):
        is_test = fold == number
        fitted = detector.fit(
            x[~is_test], labels[~is_test], groups[~is_test], derive_seed(seed, int(number))
        )
        scores[is_test] = fitted.scores(x[is_test])
        fits.append(fitted)
    return scores, fits


def _check_same_rows(
    features: Shaped[np.ndarray, "n ..."],
    labels: Shaped[np.ndarray, " m"],
    groups: Shaped[np.ndarray, " k"],
) -> None:
    if not len(features) == len(labels) == len(groups):
        raise MismatchError(
            f"Features, labels and groups must be of the same rows, got {len(features)}, "
            f"{len(labels)} and {len(groups)}."
        )


def _canonical(ids: Shaped[np.ndarray, " n"] | None, n: int) -> Int[np.ndarray, " n"]:
    if ids is None:
        return np.arange(n)
    if len(ids) != n:
        raise MismatchError(f"Every row needs an id: there are {n} rows and {len(ids)} ids.")
    names, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(names) < n:
        raise ConfigError(
            f"Ids must be unique: {names[counts.argmax()]!r} names {counts.max()} rows. Give each "
            "answer its own, whether or not another question has the same text."
        )
    return first


def _check_groups(
    groups: Shaped[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], n_folds: int
) -> None:
    for kind, is_kind in (("made up", labels), ("true", ~labels)):
        n = len(np.unique(groups[is_kind]))
        if n < n_folds:
            raise ConfigError(
                f"{n_folds} folds need {n_folds} groups with an answer that is {kind}, there are "
                f"{n}. Take more questions, or fewer folds."
            )


def _check_folds(
    fold: Int[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    labels: Bool[np.ndarray, " n"],
    n_folds: int,
) -> None:
    if fold.shape != labels.shape or set(np.unique(fold).tolist()) != set(range(n_folds)):
        raise ConfigError(
            f"Every row must be in one of the folds 0 to {n_folds - 1}, all of them used; got "
            f"{np.unique(fold)[:_SHOWN].tolist()} for {len(fold)} of {len(labels)} rows."
        )
    names, index = np.unique(groups, return_inverse=True)
    low, high = np.full(len(names), n_folds), np.full(len(names), -1)
    np.minimum.at(low, index, fold)
    np.maximum.at(high, index, fold)
    if (low != high).any():
        bad = int(np.flatnonzero(low != high)[0])
        raise LeakError(
            f"Group {names[bad]!s} is in folds {low[bad]} and {high[bad]}, and so are "
            f"{int((low != high).sum()) - 1} more of {len(names)}: detectors would be tested on "
            "questions that they were trained on. Split by group."
        )
    has_both = [len(np.unique(labels[fold == number])) == 2 for number in range(n_folds)]
    if not any(has_both):
        raise ConfigError("No fold has both labels, so nothing can be compared within one.")
    for number in range(n_folds):
        if len(np.unique(labels[fold != number])) < 2:
            raise ConfigError(
                f"Outside fold {number} all answers have one label. Take fewer folds, or folds "
                "that are stratified by label."
            )


def _notes(fits: list[Fitted], names: Sequence[str]) -> tuple[str, ...]:
    constant = {column for fitted in fits for column in fitted.constant}
    filled = {column for fitted in fits for column in fitted.filled}
    said = []
    if constant:
        said.append(
            f"{_columns(constant, names)} constant in the training rows of a fold (left out)"
        )
    if filled:
        said.append(
            f"{_columns(filled, names)} not known in some rows (the training rows' median there)"
        )
    return (f"{'; '.join(said)}.",) if said else ()


def _columns(found: Iterable[int], names: Sequence[str]) -> str:
    numbers = sorted(found)
    shown = ", ".join(names[i] if names else f"column {i}" for i in numbers[:_SHOWN])
    rest = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return f"{shown}{rest} {'is' if len(numbers) == 1 else 'are'}"
