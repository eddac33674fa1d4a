"""The online detector: two logistic regressions, kept as plain numbers.

One is for the moment before the first token, when the prompt alone was read, and one for all
moments after it: what is known differs too much for one set of weights. Prefixes of an answer
share a weight of 1, so that long answers count no more than short ones.

The penalty is chosen by inner folds of groups, and the same held-out scores mend the
probabilities (Platt 1999): the slope is put into the weights, and the detector stays linear. Where
held-out answers are not told apart, or the wrong way round, the slope is 0 and the score is the
share of made-up answers.

Axes: n rows (prefixes), d columns, k of which are kept.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
from scipy.special import expit, log_expit, logit
from sklearn.linear_model import LogisticRegression

from fluoroscope.core.errors import DamagedError, MismatchError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.storage import read_json, sha256_file, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.studies.hallucination.detection.columns import Columns
from fluoroscope.studies.hallucination.detection.logistic import PENALTIES, inner_folds

TENSORS, ABOUT = "detector.safetensors", "detector.json"
_KIND = "online detector"


@dataclass(frozen=True, eq=False)
class Linear:
    """A logistic regression of standardised columns; those that it does not look at weigh 0."""

    median: Float64[np.ndarray, " d"]
    """Stands where a column is not known."""

    mean: Float64[np.ndarray, " d"]
    sd: Float64[np.ndarray, " d"]
    weights: Float64[np.ndarray, " d"]
    bias: Float64[np.ndarray, ""]

    def contributions(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        """Of each column to the log-odds, beside a row at the mean of the training rows."""
        filled = np.where(np.isnan(x), self.median, x)
        return (filled - self.mean) / self.sd * self.weights

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        """Probability that the answer is made up."""
        return expit(self.contributions(x).sum(axis=1) + self.bias)


@dataclass(frozen=True, eq=False)
class OnlineDetector:
    """Of rows as `prefix_columns` makes them, or of the first columns of these."""

    names: tuple[str, ...]
    before: Linear
    """Before the first token."""

    during: Linear

    def contributions(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        """Of each column to the log-odds of each row."""
        is_before = x[:, :1] == 0
        return np.where(is_before, self.before.contributions(x), self.during.contributions(x))

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        """Probability that the answer is made up, of each row."""
        return np.where(x[:, 0] == 0, self.before.scores(x), self.during.scores(x))


def fit_online(
    names: tuple[str, ...],
    x: Float[np.ndarray, "n d"],
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    seed: int,
) -> OnlineDetector:
    """Learns from these rows alone; the first column is the number of tokens."""
    is_before = x[:, 0] == 0
    before, during = (
        fit_linear(x[is_part], labels[is_part], groups[is_part], weights[is_part], part_seed)
        for is_part, part_seed in (
            (is_before, derive_seed(seed, "before")),
            (~is_before, derive_seed(seed, "during")),
        )
    )
    return OnlineDetector(names, before, during)


def fit_linear(
    x: Float[np.ndarray, "n d"],
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    seed: int,
) -> Linear:
    """Tuned and calibrated within these rows."""
    columns = Columns.of(x)
    median, mean, sd = np.zeros(x.shape[1]), np.zeros(x.shape[1]), np.ones(x.shape[1])
    found = np.zeros(x.shape[1])
    kept = columns.kept
    median[kept], mean[kept], sd[kept] = columns.median, columns.mean, columns.sd
    if len(kept) == 0:
        return Linear(median, mean, sd, found, _base_rate(labels, weights))
    inside = columns.prepare(x)
    held_out, is_known = _held_out(inside, labels, groups, weights, seed)
    best = len(PENALTIES) // 2
    slope, bias = 1.0, np.zeros(())
    if is_known.any():
        signs = np.where(labels[is_known], 1.0, -1.0)
        losses = -(log_expit(signs * held_out[:, is_known]) @ weights[is_known])
        best = int(losses.argmin())
        odds = held_out[best, is_known]
        slope, bias = _platt(odds, labels[is_known], weights[is_known])
    if slope <= 0:
        return Linear(median, mean, sd, found, _base_rate(labels, weights))
    model = _logistic(PENALTIES[best]).fit(inside, labels, sample_weight=weights)
    found[kept] = slope * np.ravel(model.coef_)
    bias = np.asarray(bias + slope * np.ravel(model.intercept_)[0])
    return Linear(median, mean, sd, found, bias)


def save_detector(detector: OnlineDetector, about: Mapping[str, Any], folder: Path) -> None:
    """Writes `detector.safetensors`, then `detector.json` with `about` (JSON values), by which a
    reader can tell what model and SAEs the columns were read from.
    """
    (folder / ABOUT).unlink(missing_ok=True)
    tensors = {
        f"{part}/{name}": torch.from_numpy(np.asarray(values))
        for part in ("before", "during")
        for name, values in asdict(getattr(detector, part)).items()
    }
    write_tensors(folder / TENSORS, tensors)
    own = {
        "kind": _KIND,
        "columns": list(detector.names),
        "tensors_sha256": sha256_file(folder / TENSORS),
    }
    write_json(folder / ABOUT, own | {"about": about})


def load_detector(folder: Path) -> tuple[OnlineDetector, dict[str, Any]]:  # Any: as it was given.
    """What `save_detector` wrote, and its `about`."""
    if not (folder / ABOUT).is_file():
        raise DamagedError(f"{folder / ABOUT} is missing: there is no online detector. Run again.")
    settings, tensors = read_json(folder / ABOUT), read_tensors(folder / TENSORS)
    found = sha256_file(folder / TENSORS)
    if found != settings["tensors_sha256"]:
        raise DamagedError(
            f"{folder / TENSORS} is damaged, or not the file that {ABOUT} describes: its SHA-256 "
            f"should be {settings['tensors_sha256'][:16]}..., it is {found[:16]}.... Delete the "
            "folder and run the study again."
        )
    parts = {
        part: Linear(**{one.name: tensors[f"{part}/{one.name}"].numpy() for one in fields(Linear)})
        for part in ("before", "during")
    }
    return OnlineDetector(tuple(settings["columns"]), **parts), settings["about"]


def check_model(
    recorded: Mapping[str, str | None], own: Mapping[str, str | None], run: str
) -> None:
    """Raises `MismatchError` unless a model has the weights and the tokenizer that are recorded."""
    for name in ("weights_sha256", "tokenizer_sha256"):
        if recorded.get(name) != own.get(name):
            raise MismatchError(
                f"The online detector of run {run} is of {recorded.get('id')}, with {name} "
                f"{str(recorded.get(name))[:12]}..., and was to score {own.get('id')}, which has "
                f"{str(own.get(name))[:12]}.... Watch the model that the run was made with, or "
                "make a run of this one."
            )


def _held_out(
    x: Float[np.ndarray, "n k"],
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    seed: int,
) -> tuple[Float64[np.ndarray, "penalties n"], Bool[np.ndarray, " n"]]:
    """Log-odds of rows by models that were fitted without their group, and which have any."""
    found = np.zeros((len(PENALTIES), len(x)))
    is_known = np.zeros(len(x), bool)
    for train, test in inner_folds(labels, groups, seed):
        model = _logistic(PENALTIES[0])
        for row, penalty in enumerate(PENALTIES):
            model.set_params(C=penalty)
            model.fit(x[train], labels[train], sample_weight=weights[train])
            found[row, test] = model.decision_function(x[test])
        is_known[test] = True
    return found, is_known & (len(np.unique(labels[is_known])) == 2)


def _platt(
    odds: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> tuple[float, Float64[np.ndarray, ""]]:
    """Slope and bias by which log-odds become those of probabilities that can be believed."""
    made_up, true = weights[labels].sum(), weights[~labels].sum()
    # Platt's targets keep the curve finite where the labels are separated.
    target = np.where(labels, (made_up + 1) / (made_up + 2), 1 / (true + 2))
    x, y = np.tile(odds, 2)[:, None], np.repeat([True, False], len(odds))
    model = LogisticRegression(C=np.inf, max_iter=1000)
    model.fit(x, y, sample_weight=np.concatenate([weights * target, weights * (1 - target)]))
    return float(np.ravel(model.coef_)[0]), np.asarray(np.ravel(model.intercept_)[0])


def _logistic(penalty: float) -> LogisticRegression:
    # There are many more rows than columns, and few of either: Newton's steps are fewest.
    return LogisticRegression(C=penalty, solver="newton-cholesky", warm_start=True, max_iter=200)


def _base_rate(
    labels: Bool[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> Float64[np.ndarray, ""]:
    return np.asarray(logit(weights[labels].sum() / weights.sum()))
