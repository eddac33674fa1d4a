"""Detectors learn from training rows alone, and say what they did to columns."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.detection.detectors import Logistic, Memory, Words


def rows(n=300, d=8, seed=0, strength=1.0):
    luck = np.random.default_rng(seed)
    labels = luck.random(n) < 0.5
    x = luck.normal(size=(n, d)) * 3 + 5
    x[:, 0] += 3 * strength * labels
    return x, labels, np.arange(n) // 2


@pytest.mark.parametrize("name", ["logistic", "forest", "boosting", "mlp"])
def test_every_detector_finds_what_is_there_and_gives_probabilities(name):
    x, labels, groups = rows(600, strength=2)
    fitted = DETECTORS.load(name)().fit(x[:400], labels[:400], groups[:400], 0)
    scores = fitted.scores(x[400:])
    assert roc_auc_score(labels[400:], scores) > 0.85
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_a_detector_that_does_not_exist_is_named_with_its_neighbour():
    with pytest.raises(ConfigError, match="Did you mean 'logistic'"):
        DETECTORS.load("logistc")


def test_the_logistic_one_is_that_of_scikit_learn_on_standardised_columns():
    x, labels, groups = rows()
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000).fit(scaler.transform(x), labels)
    found = Logistic(penalties=(0.1,)).fit(x, labels, groups, 0).scores(x[:50])
    expected = model.predict_proba(scaler.transform(x[:50]))[:, 1]
    np.testing.assert_allclose(found, expected, atol=3e-5)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_more_columns_than_rows_give_the_same_scores_as_working_in_all_of_them(kind):
    luck = np.random.default_rng(0)
    x = luck.normal(size=(60, 400)).astype(kind)
    labels, groups = x[:, 0] + luck.normal(size=60) > 0, np.arange(60)
    scaler = StandardScaler().fit(x[:40])
    options = {"C": 0.01, "tol": 1e-8, "max_iter": 10_000}
    model = LogisticRegression(**options).fit(scaler.transform(x[:40]), labels[:40])
    found = Logistic(penalties=(0.01,)).fit(x[:40], labels[:40], groups[:40], 0)
    expected = model.predict_proba(scaler.transform(x[40:]))[:, 1]
    np.testing.assert_allclose(found.scores(x[40:]), expected, atol=2e-3)


def test_the_penalty_follows_the_inner_folds():
    # Where columns are noise the strongest penalty of all is best; where one is not, a weak one.
    noise, labels, groups = rows(d=30, strength=0)
    signal, own, _ = rows(d=30, strength=4)
    penalties = (1e-4, 1.0)

    def spread(x, y):
        return np.ptp(Logistic(penalties).fit(x, y, groups, 0).scores(x))

    assert spread(noise, labels) < 0.2
    assert spread(signal, own) > 0.8


def test_inner_folds_go_by_group():
    # A column names the group: by rows it would look like a signal worth a weak penalty.
    luck = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    labels = (luck.random(60) < 0.5)[groups]
    x = np.eye(60)[groups] + 0.01 * luck.normal(size=(300, 60))
    by_group = Logistic((1e-4, 10.0)).fit(x, labels, groups, 0).scores(x)
    by_row = Logistic((1e-4, 10.0)).fit(x, labels, np.arange(300), 0).scores(x)
    assert np.ptp(by_group) < 0.1
    assert np.ptp(by_row) > 0.8


def test_constant_and_missing_columns_are_handled_by_what_training_rows_say():
    x, labels, groups = rows()
    x[:, 3] = 2.0
    x[:, 5] = np.nan
    x[::7, 1] = np.nan
    fitted = Logistic().fit(x, labels, groups, 0)
    assert fitted.constant == (3, 5)
    assert fitted.filled == (1,)
    # A value that training never had in a column it left out does not matter.
    other = x.copy()
    other[:, 3], other[:, 5] = -50.0, 9.0
    np.testing.assert_array_equal(fitted.scores(other), fitted.scores(x))
    # What is missing is the median of training, in new rows too.
    missing, median = x[:1].copy(), x[:1].copy()
    missing[0, 1], median[0, 1] = np.nan, np.nanmedian(x[:, 1])
    np.testing.assert_allclose(fitted.scores(missing), fitted.scores(median))
    x[4, 2] = np.inf
    with pytest.raises(NumericsError, match=r"Column 2 .* infinite in 1 of 300 rows"):
        Logistic().fit(x, labels, groups, 0)


@pytest.mark.parametrize("name", ["logistic", "forest", "boosting", "mlp", "memory"])
def test_columns_without_any_difference_leave_the_base_rate(name):
    labels = np.arange(20) % 4 == 0
    fitted = DETECTORS.load(name)().fit(np.ones((20, 3)), labels, np.arange(20), 0)
    np.testing.assert_array_equal(fitted.scores(np.zeros((5, 3))), np.full(5, 0.25))
    assert fitted.constant == (0, 1, 2)


def test_memory_knows_what_it_saw_and_nothing_else():
    luck = np.random.default_rng(0)
    x, labels = luck.normal(size=(200, 26)), luck.random(200) < 0.5
    fitted = Memory().fit(x[:100], labels[:100], np.arange(100), 0)
    np.testing.assert_array_equal(fitted.scores(x[:100]), labels[:100])
    assert 0.3 < roc_auc_score(labels[100:], fitted.scores(x[100:])) < 0.7


def test_without_a_word_the_share_of_made_up_answers_is_all_that_is_known():
    labels = np.arange(20) < 5
    fitted = Words().fit(np.full(20, "", object), labels, np.arange(20), 0)
    np.testing.assert_allclose(fitted.scores(np.array(["", "something"], object)), 0.25)


def test_words_learn_a_style():
    luck = np.random.default_rng(0)
    labels = luck.random(200) < 0.5
    style = np.where(labels, "always", "sometimes")
    texts = np.array([f"it {word} is {luck.integers(50)}" for word in style])
    fitted = Words().fit(texts[:100], labels[:100], np.arange(100), 0)
    assert roc_auc_score(labels[100:], fitted.scores(texts[100:])) == 1
