"""Whether a probability means what it says, mending it, and a threshold that keeps a promise.

Axes: n rows, r repeats, k bins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import clustered_share_interval
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.studies.hallucination.detection.detectors import Detector, Fitted
from fluoroscope.studies.hallucination.detection.logistic import inner_folds
from fluoroscope.studies.hallucination.detection.scores import Scored

Method = Literal["isotonic", "platt"]
Calibrator = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]


class CalibrationError(NamedTuple):
    """Expected calibration error, and what it is where nothing is wrong."""

    value: float
    if_calibrated: float
    """Its mean where labels are drawn with the probabilities that the scores state: chance alone
    leaves every bin a little beside its mean.
    """

    if_calibrated_95: float
    """Exceeded by one in twenty such draws (Broecker and Smith 2007)."""


def calibration_error(
    rows: Scored, seed: int, n_bins: int = 10, n_draws: int = 200
) -> CalibrationError:
    """Mean distance of score and share made up over bins of equal mass (Naeini et al. 2015).

    Over repeats averaged. The draws take rows as independent.
    """
    _check_probabilities(rows.scores)
    bins = [equal_mass_bins(scores, n_bins) for scores in rows.scores]
    random = stream(seed, "labels of calibrated scores")
    # One draw of luck for all repeats, for they score the same rows.
    luck = random.random((n_draws, len(rows.labels)))
    found = np.zeros(n_draws + 1)
    for scores, own in zip(rows.scores, bins, strict=True):
        labels = np.concatenate([rows.labels[None], luck < scores])
        gaps = [np.abs(np.bincount(own, scores - each)).sum() for each in labels]
        found += np.array(gaps) / len(scores) / len(bins)
    drawn = found[1:]
    return CalibrationError(float(found[0]), float(drawn.mean()), float(np.quantile(drawn, 0.95)))


def reliability(rows: Scored, n_bins: int = 10) -> pl.DataFrame:
    """A row a bin of equal mass: n, mean score, and the share made up with its 95 % interval.

    Repeats are taken together (n counts a row once for each), and their rows belong to one group.
    """
    _check_probabilities(rows.scores)
    scores, n_repeats = rows.scores.ravel(), len(rows.scores)
    labels, groups = np.tile(rows.labels, n_repeats), np.tile(rows.groups, n_repeats)
    bins = equal_mass_bins(scores, n_bins)
    table = []
    for number in np.unique(bins):
        here = bins == number
        share = clustered_share_interval(labels[here], groups[here])
        table.append((int(number), int(here.sum()), float(scores[here].mean()), *share))
    names = ["bin", "n", "score", "share", "low", "high"]
    return pl.DataFrame(table, schema=names, orient="row")


def equal_mass_bins(scores: Float[np.ndarray, " n"], n_bins: int) -> Int[np.ndarray, " n"]:
    """The bin of each row, from 0; rows of one score are in one bin, so some may be empty."""
    middle = rankdata(scores, "average") - 0.5
    return np.floor(middle / len(scores) * n_bins).astype(np.int64)


def fit_calibrator(
    scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], method: Method
) -> Calibrator:
    """From scores to probabilities, learnt from rows that the detector was not trained on.

    `platt` is a logistic curve over the log-odds with Platt's (1999) targets, which keep it finite
    where the labels are separated; `isotonic` any rising steps, for a thousand rows or more.
    """
    _check_probabilities(scores)
    if method == "isotonic":
        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
        return lambda new: np.asarray(steps.predict(new), np.float64)
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    # A target between 0 and 1 is a row of each label, by weight.
    x, y = np.tile(_log_odds(scores), 2)[:, None], np.repeat([True, False], len(scores))
    model = LogisticRegression(C=np.inf, max_iter=1000)
    model.fit(x, y, sample_weight=np.concatenate([target, 1 - target]))
    slope, bias = np.ravel(model.coef_)[0], np.ravel(model.intercept_)[0]
    return lambda new: expit(slope * _log_odds(new) + bias)


@dataclass(frozen=True)
class Calibrated:
    """A detector whose probabilities are mended by groups that were held out inside its training
    rows; judged by `cross_validate` as any other, it has seen nothing of the test fold.
    """

    detector: Detector
    method: Method = "platt"

    def fit(
        self,
        x: Shaped[np.ndarray, "n ..."],
        labels: Bool[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"],
        seed: int,
    ) -> Fitted:
        held_out = np.full(len(labels), np.nan)
        for number, (train, test) in enumerate(inner_folds(labels, groups, seed)):
            inner = self.detector.fit(
                x[train], labels[train], groups[train], derive_seed(seed, number)
            )
            held_out[test] = inner.scores(x[test])
        fitted = self.detector.fit(x, labels, groups, seed)
        is_known = ~np.isnan(held_out)
        if len(np.unique(labels[is_known])) < 2:
            raise ConfigError(
                "To calibrate a detector takes two groups with each label among the training "
                "rows. Take more questions, or leave the calibration out."
            )
        mended = fit_calibrator(held_out[is_known], labels[is_known], self.method)
        return Fitted(lambda rows: mended(fitted.scores(rows)), fitted.constant, fitted.filled)


class Abstention(NamedTuple):
    """Answers are given where the score is below the threshold, and withheld elsewhere."""

    threshold: float
    miss_rate: float
    """The promise: at most this share of made-up answers is given."""

    n_groups: int
    """Groups with a made-up answer, from which the threshold comes."""

    given_if_true: float
    """Share of the true answers of these rows that are given: the price."""


def abstention_threshold(
    scores: Float[np.ndarray, " n"],
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    miss_rate: float = 0.1,
) -> Abstention:
    """The highest threshold at which a made-up answer to a new question is given with probability
    at most `miss_rate`: split conformal (Vovk et al. 2005), of the made-up answers alone.

    Exact for any number of groups and any detector, where the new question comes from where these
    came from and the detector was trained on none of them. Rows of a group share its weight (Dunn
    et al. 2023; Lee et al. 2023), for answers to one question are not independent. With fewer than
    1 / miss_rate - 1 groups nothing can be promised but silence: the threshold is minus infinity.
    """
    if not 0 < miss_rate < 1:
        raise ConfigError(f"miss_rate must be between 0 and 1, got {miss_rate}.")
    made_up, which = scores[labels], np.unique(groups[labels], return_inverse=True)[1]
    sizes = np.bincount(which)
    order = np.argsort(made_up)
    # The new question counts as a group whose answer is given whatever the threshold.
    given = (1 + np.cumsum(1 / sizes[which[order]])) / (len(sizes) + 1)
    # A threshold at a score gives what is below it, not the score itself.
    n_given = int(np.searchsorted(given, miss_rate * (1 + 1e-12), side="right"))
    is_possible = 1 / (len(sizes) + 1) <= miss_rate * (1 + 1e-12)
    threshold = float(made_up[order][n_given]) if is_possible else -math.inf
    given_if_true = float((scores[~labels] < threshold).mean())
    return Abstention(threshold, miss_rate, len(sizes), given_if_true)


def _log_odds(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return logit(np.clip(scores, 1e-6, 1 - 1e-6))


def _check_probabilities(scores: Float[np.ndarray, "..."]) -> None:
    if scores.min() < 0 or scores.max() > 1:
        raise ConfigError(
            f"Scores must be probabilities, got {scores.min():.3g} to {scores.max():.3g}. Let a "
            "logistic detector of this one score turn it into one."
        )
