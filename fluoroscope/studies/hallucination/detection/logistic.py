"""Logistic regression with an L2 penalty that folds of whole groups choose.

Axes: n rows, d columns, k of which are kept, m dimensions of the rows' span.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

PENALTIES = tuple(10.0**power for power in range(-4, 3))
"""What `C` (the inverse of the penalty) is chosen from."""

_N_INNER_FOLDS = 5

Scores = Callable[[Shaped[np.ndarray, "n ..."]], Float[np.ndarray, " n"]]


def learn_logistic(
    x: Float[np.ndarray, "n k"],
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    penalties: tuple[float, ...],
    seed: int,
) -> tuple[Scores, float]:
    """What `Logistic` learns, and the log loss of inner folds with the penalty that was chosen."""
    if x.shape[1] <= len(x):
        model, loss = tuned(x, labels, groups, penalties, seed)
        weights = np.ravel(model.coef_)
    else:
        inside, to_rows = _own_span(x)
        model, loss = tuned(inside, labels, groups, penalties, seed)
        weights = x.T @ (to_rows @ np.ravel(model.coef_)).astype(x.dtype)
    bias = np.ravel(model.intercept_)[0]
    return lambda rows: expit(rows @ weights + bias), loss


def tuned(
    x: Float[np.ndarray, "n d"] | csr_array,
    labels: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    penalties: tuple[float, ...],
    seed: int,
) -> tuple[LogisticRegression, float]:
    """The model of the penalty with the least log loss in inner folds, and that loss."""
    # Newton's method takes half the time where there are few columns.
    is_narrow = isinstance(x, np.ndarray) and x.shape[1] <= len(x) // 2
    solver = "newton-cholesky" if is_narrow else "lbfgs"
    losses = np.zeros(len(penalties))
    for train, test in inner_folds(labels, groups, seed):
        model = LogisticRegression(solver=solver, warm_start=True, max_iter=1000)
        for i, penalty in enumerate(penalties):
            model.set_params(C=penalty).fit(x[train], labels[train])
            signs = np.where(labels[test], 1.0, -1.0)
            losses[i] -= log_expit(signs * model.decision_function(x[test])).sum()
    # Without inner folds all losses are alike, and the middle is taken.
    best = int(losses.argmin()) if losses.any() else len(penalties) // 2
    model = LogisticRegression(C=penalties[best], solver=solver, max_iter=1000).fit(x, labels)
    return model, float(losses[best])


def inner_folds(
    labels: Bool[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], seed: int
) -> list[tuple[np.ndarray, ...]]:
    """Up to 5 folds of whole groups, each with both labels outside it; none where that cannot be.

    Pairs of training and test rows.
    """
    index = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return list(_inner_folds(labels.tobytes(), index.tobytes(), seed))


@lru_cache(maxsize=32)
def _inner_folds(labels: bytes, groups: bytes, seed: int) -> tuple[tuple[np.ndarray, ...], ...]:
    # Layers, and exchanges of columns, ask for the same folds again and again.
    is_true, index = np.frombuffer(labels, bool), np.frombuffer(groups, np.int64)
    n = min(len(np.unique(index[is_true])), len(np.unique(index[~is_true])), _N_INNER_FOLDS)
    if n < 2:
        return ()
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed % 2**32)
    splits = splitter.split(is_true, is_true, index)
    return tuple((train, test) for train, test in splits if len(np.unique(is_true[train])) == 2)


def _own_span(x: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Rows in coordinates of an orthonormal basis of their span [n, m], and by which weights of
    rows such coordinates become weights of columns [n, m].
    """
    squares, vectors = eigh((x @ x.T).astype(np.float64))
    is_kept = squares > squares[-1] * len(x) * np.finfo(x.dtype).eps
    lengths = squares[is_kept] ** 0.5
    return vectors[:, is_kept] * lengths, vectors[:, is_kept] / lengths
