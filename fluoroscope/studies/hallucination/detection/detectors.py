"""Detectors: from features of an answer to the probability that it is made up.

All of them are scikit-learn's. What a detector learns, how it fills and scales columns included,
comes from the rows that it is fitted on. Of the logistic ones the penalty is tuned, by folds of
groups within those rows; the settings of the others are fixed, for choosing among many by the
score that is reported is how such scores come to be too good.

Axes: n rows, d features, k of which are kept.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.sparse import csr_array
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from threadpoolctl import ThreadpoolController

from fluoroscope.studies.hallucination.detection.columns import Columns
from fluoroscope.studies.hallucination.detection.logistic import (
    PENALTIES,
    Scores,
    learn_logistic,
    tuned,
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A detector that has learnt."""

    scores: Scores
    """Probability that each row is made up."""

    constant: tuple[int, ...] = ()
    """Columns without two different values in training, which it does not look at."""

    filled: tuple[int, ...] = ()
    """Columns with NaN in training: the median of the others stands there."""


class Detector(Protocol):
    def fit(
        self,
        x: Shaped[np.ndarray, "n ..."],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Fitted:
        """Learns from these rows and from nothing else."""
        ...


class OnColumns(ABC):
    """A detector of numbers: columns are filled and scaled before it learns."""

    def fit(
        self,
        x: Shaped[np.ndarray, "n ..."],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Fitted:
        columns = Columns.of(x)
        if len(columns.kept):
            learnt = self.learn(columns.prepare(x), labels, groups, seed)
        else:
            learnt = base_rate(labels)
        return Fitted(
            lambda rows: np.asarray(learnt(columns.prepare(rows)), np.float64),
            columns.constant,
            columns.filled,
        )

    @abstractmethod
    def learn(
        self,
        x: Float[np.ndarray, "n k"],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Scores:
        """From columns of mean 0 and standard deviation 1."""


@dataclass(frozen=True)
class Logistic(OnColumns):
    """Logistic regression with an L2 penalty, chosen by the log loss of inner folds of groups.

    Where there are more columns than rows it works in the rows' own span, which is exact: a
    penalty on the norm leaves nothing outside.
    """

    penalties: tuple[float, ...] = PENALTIES

    def learn(
        self,
        x: Float[np.ndarray, "n k"],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Scores:
        return learn_logistic(x, labels, groups, self.penalties, seed)[0]


@dataclass(frozen=True)
class Forest(OnColumns):
    """A random forest of 300 trees."""

    n_trees: int = 300

    def learn(
        self,
        x: Float[np.ndarray, "n k"],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Scores:
        model = RandomForestClassifier(self.n_trees, random_state=seed % 2**32)
        return _probability(model.fit(x, labels))


@dataclass(frozen=True)
class Boosting(OnColumns):
    """100 boosted trees of depth 3, by histograms."""

    def learn(
        self,
        x: Float[np.ndarray, "n k"],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Scores:
        # Stopping early would hold out rows, and with them parts of groups.
        model = HistGradientBoostingClassifier(max_depth=3, random_state=seed % 2**32)
        with _one_thread():
            model.set_params(early_stopping=False).fit(x, labels)
        return _one_at_a_time(_probability(model))


@dataclass(frozen=True)
class Perceptron(OnColumns):
    """Layers of 256, 128 and 64 for 5 epochs, as SAPLMA has them (Azaria and Mitchell 2023)."""

    def learn(
        self,
        x: Float[np.ndarray, "n k"],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Scores:
        model = MLPClassifier((256, 128, 64), max_iter=5, random_state=seed % 2**32)
        model.set_params(batch_size=min(32, len(x)))
        with warnings.catch_warnings():
            # Five epochs are meant.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return _probability(model.fit(x, labels))


@dataclass(frozen=True)
class Memory(OnColumns):
    """The label of the most alike row: it learns nothing and remembers everything, so it shows
    best what can be known again.
    """

    def learn(
        self,
        x: Float[np.ndarray, "n k"],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Scores:
        model = KNeighborsClassifier(1, algorithm="brute").fit(x, labels)
        return _one_at_a_time(_probability(model))


@dataclass(frozen=True)
class Words:
    """TF-IDF of words and pairs of words, and a logistic regression as above; rows are texts."""

    penalties: tuple[float, ...] = PENALTIES

    def fit(
        self,
        x: Shaped[np.ndarray, "n ..."],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Fitted:
        # Numbers and single letters are words too: many answers are nothing else.
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        split = words.build_analyzer()
        if not any(split(text) for text in x.tolist()):
            return Fitted(base_rate(labels))
        inside = csr_array(words.fit(x.tolist()).transform(x.tolist()))
        model, _ = tuned(inside, labels, groups, tuple(100 * c for c in self.penalties), seed)
        told = model.predict_proba
        return Fitted(lambda rows: told(csr_array(words.transform(rows.tolist())))[:, 1])


def base_rate(labels: Bool[np.ndarray, " n"]) -> Scores:
    """What is known without looking, for rows that do not differ."""
    share = float(labels.mean())
    return lambda rows: np.full(len(rows), share)


def _one_thread() -> AbstractContextManager[object]:
    """Beside torch scikit-learn starts more threads than it is told to, which on a busy machine
    wait for each other a hundred times as long as they work.
    """
    return _threads().limit(limits=1, user_api="openmp")


@cache
def _threads() -> ThreadpoolController:
    # To look for the libraries takes longer than a small fit.
    return ThreadpoolController()


def _one_at_a_time(scores: Scores) -> Scores:
    def alone(x: Shaped[np.ndarray, "n ..."]) -> Float[np.ndarray, " n"]:
        with _one_thread():
            return scores(x)

    return alone


def _probability(model) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: model.predict_proba(x)[:, 1]
