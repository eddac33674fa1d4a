"""Each score against its plain definition, and against what must not change it."""

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf

from fluoroscope.core.errors import CorpusError, NumericsError
from fluoroscope.studies.plugin.selection.transferability import (
    PENALTIES,
    hscore,
    log_evidence,
    logme,
    loo_ridge,
    one_hot,
    spectrum,
    variability,
)


def drawn(n: int, d: int, n_classes: int = 3, strength: float = 1.0, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.integers(n_classes, size=n)
    centres = random.normal(size=(n_classes, d))
    return strength * centres[labels] + random.normal(size=(n, d)), labels


SHAPES = [(60, 7), (30, 50)]


def dense_log_evidence(rows: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """The formula of the paper, with its matrices written out."""
    n, d = rows.shape
    precision = alpha * np.eye(d) + beta * rows.T @ rows
    mean = beta * np.linalg.solve(precision, rows.T @ target)
    return (
        n / 2 * np.log(beta)
        + d / 2 * np.log(alpha)
        - n / 2 * np.log(2 * np.pi)
        - beta / 2 * np.sum((target - rows @ mean) ** 2)
        - alpha / 2 * mean @ mean
        - np.linalg.slogdet(precision)[1] / 2
    )


def without_mean(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In coordinates of all that is orthogonal to an intercept, one less than there are rows."""
    basis = null_space(np.ones((1, len(rows))))
    return basis.T @ rows, basis.T @ target


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_log_evidence_is_the_maximum_of_the_dense_formula(n: int, d: int):
    rows, labels = drawn(n, d)
    target = one_hot(labels)[:, 0]
    inner, y = without_mean(rows, target)
    starts = [(0.0, 0.0), (3.0, 2.0), (6.0, 1.0)]
    best = max(
        -minimize(lambda x: -dense_log_evidence(inner, y, *np.exp(x)), start).fun
        for start in starts
    )
    assert log_evidence(spectrum(rows), target) == pytest.approx(best, abs=1e-4)


def test_the_best_evidence_is_where_the_papers_steps_end():
    rows, labels = drawn(60, 7)
    target = one_hot(labels)[:, 0]
    inner, y = without_mean(rows, target)
    alpha = beta = 1.0
    squares = np.linalg.eigvalsh(inner.T @ inner)
    for _ in range(200):
        gamma = np.sum(beta * squares / (alpha + beta * squares))
        mean = beta * np.linalg.solve(alpha * np.eye(7) + beta * inner.T @ inner, inner.T @ y)
        alpha = gamma / (mean @ mean)
        beta = (len(y) - gamma) / np.sum((y - inner @ mean) ** 2)
    expected = dense_log_evidence(inner, y, alpha, beta)
    assert log_evidence(spectrum(rows), target) == pytest.approx(expected, abs=1e-5)


def test_pure_noise_has_less_evidence_than_a_signal_and_ends():
    rows, labels = drawn(60, 7, strength=0.0)
    signal, _ = drawn(60, 7, strength=1.0)
    assert logme(spectrum(rows), labels) < logme(spectrum(signal), labels)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_hscore_is_the_trace_with_the_shrunk_covariance(n: int, d: int):
    rows, labels = drawn(n, d)
    covariance, _ = ledoit_wolf(rows)
    means = np.stack([rows[labels == one].mean(axis=0) for one in labels])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.solve(covariance, between))
    assert hscore(spectrum(rows), labels) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_leave_one_out_predictions_are_those_of_ridge_without_the_row(n: int, d: int):
    rows, labels = drawn(n, d)
    found = loo_ridge(spectrum(rows), labels)
    targets = one_hot(labels)
    centred = rows - rows.mean(axis=0)
    for row in (0, 3, n - 1):
        others = np.arange(n) != row
        x, y = centred[others], targets[others]
        middle, offset = x.mean(axis=0), y.mean(axis=0)
        x = x - middle
        weights = np.linalg.solve(x.T @ x + found.penalty * np.eye(d), x.T @ (y - offset))
        expected = (centred[row] - middle) @ weights + offset
        np.testing.assert_allclose(found.predictions[row], expected, atol=1e-7)


def test_the_penalty_is_the_best_of_the_path_by_squared_error():
    rows, labels = drawn(40, 30, strength=0.3)
    found = loo_ridge(spectrum(rows), labels)
    largest = np.linalg.norm(rows - rows.mean(axis=0), ord=2) ** 2
    assert found.penalty / largest == pytest.approx(
        min(PENALTIES, key=lambda one: abs(one - found.penalty / largest))
    )
    centred, targets = rows - rows.mean(axis=0), one_hot(labels)

    def error(penalty: float) -> float:
        inner = np.linalg.solve(centred.T @ centred + penalty * np.eye(30), centred.T)
        hat = centred @ inner + 1 / 40
        missed = (targets - hat @ targets) / (1 - np.diag(hat))[:, None]
        return float((missed**2).mean())

    errors = [error(penalty * largest) for penalty in PENALTIES]
    assert errors[int(np.argmin(errors))] == pytest.approx(error(found.penalty))


def test_the_nll_is_that_of_guessing_where_nothing_can_be_told():
    _, labels = drawn(400, 3, n_classes=2)
    noise = np.random.default_rng(5).normal(size=(400, 3))
    assert loo_ridge(spectrum(noise), labels).nll.mean() == pytest.approx(np.log(2), abs=0.02)


def test_variability_is_minus_the_trace_with_the_pseudoinverse():
    rows, labels = drawn(60, 7)
    groups = [rows[labels == one] for one in range(3)]
    means = np.stack([group.mean(axis=0) for group in groups])
    within = np.mean([np.cov(group.T, bias=True) for group in groups], axis=0)
    between = np.cov(means.T, bias=True)
    expected = np.trace(within @ np.linalg.pinv(between)) / 3
    assert variability(spectrum(rows), labels) == pytest.approx(-expected)


def test_variability_of_two_classes_on_a_line_is_known_by_hand():
    # Means 0 and 4: S_b = 4, S_w = 1, so nu = 1 / 4 / 2.
    rows = np.tile([[-1.0], [1.0], [3.0], [5.0]], (3, 1))
    labels = np.tile([0, 0, 1, 1], 3)
    assert variability(spectrum(rows), labels) == pytest.approx(-0.125)


ALL = [logme, hscore, lambda rows, labels: loo_ridge(rows, labels).nll.mean(), variability]


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_order_rotation_and_scale_change_no_score(score, n: int, d: int):
    rows, labels = drawn(n, d)
    random = np.random.default_rng(1)
    order = random.permutation(n)
    rotation, _ = np.linalg.qr(random.normal(size=(d, d)))
    expected = score(spectrum(rows), labels)
    assert score(spectrum(rows[order]), labels[order]) == pytest.approx(expected, rel=1e-6)
    assert score(spectrum(rows @ rotation), labels) == pytest.approx(expected, rel=1e-6)
    assert score(spectrum(1e3 * rows + 7), labels) == pytest.approx(expected, rel=1e-6)


def test_equal_states_and_one_class_are_errors():
    with pytest.raises(NumericsError, match="the same"):
        spectrum(np.full((20, 3), 0.1))
    rows, labels = drawn(20, 3)
    with pytest.raises(CorpusError, match="no layer is taken unseen"):
        logme(spectrum(rows), np.zeros_like(labels))
