"""Scores of a layer's states that need no training, by one decomposition of them each.

More is better in all of them, and an orthogonal rotation or a rescaling of the states changes
none. States and labels are centred: an intercept, of which evidence knows nothing beforehand.

- LogME (You et al. 2021, arXiv:2102.11005): log evidence of Bayesian regression on one-hot labels,
  by row. With t = alpha / beta its best beta is n / E(t), so that one number is left to search:
      max over t of  n/2 log(n / E) - n/2 + 1/2 sum_k log(t / (t + s_k^2)) - n/2 log 2 pi,
      E(t) = |y|^2 - |U'y|^2 + sum_k (u_k'y)^2 t / (t + s_k^2)
  where n is one less than there are rows, as the intercept takes one. The paper's steps of alpha
  and beta end at stationary points of it; a search cannot get stuck.
- H-score (Bao et al. 2019): tr(S^-1 Cov(E[F|y])), S shrunk as by Ledoit and Wolf (2004).
- Leave-one-out ridge: y_i - yhat_-i = (y_i - yhat_i) / (1 - h_ii), for a path of penalties.
- Variability ratio (Xie et al. 2022, Findings of EMNLP): nu = tr(S_w S_b^+) / K, where classes
  count alike; it is small where classes have collapsed, so the score is -nu.

Axes: n rows, d columns, k of full rank, classes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.studies.plugin.selection.features import LayerFeatures, check_labels

PENALTIES = 10.0 ** np.arange(-9.0, 2.5, 0.5)
"""Of ridge, in units of the largest squared singular value."""

_RATIOS = 10.0 ** np.arange(-13.0, 9.0, 0.25)
"""Of alpha to beta, in the same units."""


class Spectrum(NamedTuple):
    """Centred rows as `left * values`, in coordinates of an orthonormal basis of their span."""

    left: Float[np.ndarray, "n k"]
    values: Float[np.ndarray, " k"]

    n_columns: int
    """Of the rows themselves."""


class LooRidge(NamedTuple):
    """At the penalty with the least squared error; each row's is without that row."""

    nll: Float[np.ndarray, " n"]
    """In nats; the one scale that turns predictions into log-odds is that which fits best."""

    is_right: Float[np.ndarray, " n"]
    predictions: Float[np.ndarray, "n classes"]
    penalty: float


class TextScores(NamedTuple):
    """Of all layers."""

    logme: Float[np.ndarray, " layers"]
    hscore: Float[np.ndarray, " layers"]

    loo_nll: Float[np.ndarray, " layers"]
    """Less is better; the score of method `loo` is its negative."""

    loo_nll_se: Float[np.ndarray, " layers"]
    loo_accuracy: Float[np.ndarray, " layers"]

    variability: Float[np.ndarray, " layers"]
    """-nu."""


def text_scores(features: LayerFeatures, sink: Sink = SILENT) -> TextScores:
    """What the states of texts say of each layer."""
    found = []
    for layer in range(features.n_layers):
        rows = spectrum(features.layer(layer))
        loo = loo_ridge(rows, features.labels)
        found.append(
            (
                logme(rows, features.labels),
                hscore(rows, features.labels),
                loo.nll.mean(),
                loo.nll.std(ddof=1) / len(loo.nll) ** 0.5,
                loo.is_right.mean(),
                variability(rows, features.labels),
            )
        )
        sink.progress(layer + 1, features.n_layers, "layers")
    return TextScores(*np.array(found).T)


def spectrum(rows: Float[np.ndarray, "n d"]) -> Spectrum:
    """Raises `NumericsError` where all rows are the same."""
    centred = rows - rows.mean(axis=0)
    is_wide = centred.shape[1] > len(centred)
    # Products of the shorter side: a fraction of the time of a decomposition of the rows.
    squares, vectors = eigh(centred @ centred.T if is_wide else centred.T @ centred)
    kept = squares > max(squares[-1], 0.0) * max(centred.shape) * np.finfo(np.float64).eps
    if np.ptp(rows, axis=0).max() <= 1e-12 * np.abs(rows).max() or not kept.any():
        raise NumericsError("All states are the same, so nothing can be told of them.")
    values = squares[kept][::-1] ** 0.5
    vectors = vectors[:, kept][:, ::-1]
    left = vectors if is_wide else centred @ vectors / values
    return Spectrum(np.ascontiguousarray(left), values, rows.shape[1])


def logme(rows: Spectrum, labels: Int[np.ndarray, " n"]) -> float:
    """Mean over classes of the log evidence a row."""
    evidence = [log_evidence(rows, one) for one in one_hot(labels).T]
    return float(np.mean(evidence) / (len(labels) - 1))


def log_evidence(rows: Spectrum, target: Float[np.ndarray, " n"]) -> float:
    """The largest over alpha and beta, in nats, of all rows together; `target` is centred here."""
    n, target = len(target) - 1, target - target.mean()
    along = (rows.left.T @ target) ** 2
    total = float(target @ target)
    # What rounding leaves of nothing would be a noise to explain.
    beyond = max(total - along.sum(), 1e-12 * total) if len(along) < n else 0.0
    squares = rows.values**2

    def evidence(log_ratio: Float[np.ndarray, " ratios"]) -> Float[np.ndarray, " ratios"]:
        ratio = np.exp(log_ratio)[:, None]
        shrunk = ratio / (ratio + squares)
        error = beyond + shrunk @ along
        fit = np.log(n / error) - 1 - np.log(2 * np.pi)
        return 0.5 * (n * fit + np.log(shrunk).sum(axis=1))

    ratios = np.log(_RATIOS * squares[0])
    values = evidence(ratios)
    best = int(values.argmax())
    ends = ratios[max(best - 1, 0)], ratios[min(best + 1, len(ratios) - 1)]
    found = minimize_scalar(
        lambda ratio: -float(evidence(np.array([ratio]))[0]), bounds=ends, method="bounded"
    )
    return max(float(values[best]), -float(found.fun))


def hscore(rows: Spectrum, labels: Int[np.ndarray, " n"]) -> float:
    """Variance that classes explain, in units of the shrunk covariance."""
    n, p = len(labels), rows.n_columns
    coordinates = rows.left * rows.values
    variances = rows.values**2 / n
    mean = variances.sum() / p
    # Ledoit and Wolf's share, from moments that no rotation changes.
    away = (variances**2).sum() / p - mean**2
    noise = ((coordinates**2).sum(axis=1) ** 2).mean() - (variances**2).sum()
    share = min(noise / (n * p), away) / away if away > 0 else 0.0
    _, means, counts = _class_means(coordinates, labels)
    between = counts / n @ means**2
    return float((between / ((1 - share) * variances + share * mean)).sum())


def loo_ridge(rows: Spectrum, labels: Int[np.ndarray, " n"]) -> LooRidge:
    """Ridge on one-hot labels, each row left out in turn; exact, for all penalties at once."""
    n, targets = len(labels), one_hot(labels)
    centred = targets - targets.mean(axis=0)
    along = rows.left.T @ centred
    squares, weights = rows.values**2, rows.left**2
    errors = []
    for penalty in PENALTIES * squares[0]:
        kept = squares / (squares + penalty)
        leverage = 1 / n + weights @ kept
        missed = centred - rows.left @ (kept[:, None] * along)
        errors.append(missed / np.maximum(1 - leverage, 1e-12)[:, None])
    best = int(np.argmin([(error**2).mean() for error in errors]))
    predictions = targets - errors[best]
    places = np.unique(labels, return_inverse=True)[1]
    return LooRidge(
        _fitting_nll(predictions, places),
        (predictions.argmax(axis=1) == places).astype(np.float64),
        predictions,
        float(PENALTIES[best] * squares[0]),
    )


def variability(rows: Spectrum, labels: Int[np.ndarray, " n"]) -> float:
    """-nu; -inf where the means of all classes are one."""
    coordinates = rows.left * rows.values
    places, means, counts = _class_means(coordinates, labels)
    _, lengths, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    # There is one direction less than there are classes.
    kept = lengths > 1e-9 * rows.values[0] / len(labels) ** 0.5
    if not kept.any():
        return -np.inf
    within = ((coordinates - means[places]) @ directions[kept].T) ** 2
    by_class = np.stack([np.bincount(places, one) / counts for one in within.T])
    # S_b is a mean over classes, whose number cancels that of nu.
    return -float((by_class.mean(axis=1) / lengths[kept] ** 2).sum())


def one_hot(labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n classes"]:
    check_labels(labels)
    return (labels[:, None] == np.unique(labels)).astype(np.float64)


def _class_means(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's class, the mean of each class, and its number of rows."""
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = one_hot(labels).T @ rows
    return places, sums / counts[:, None], counts


def _fitting_nll(predictions: np.ndarray, places: np.ndarray) -> np.ndarray:
    index = np.arange(len(places))

    def nll(log_scale: float) -> np.ndarray:
        return -log_softmax(np.exp(log_scale) * predictions, axis=1)[index, places]

    found = minimize_scalar(
        lambda scale: float(nll(scale).mean()), bounds=(-6.0, 6.0), method="bounded"
    )
    return nll(float(found.x))
