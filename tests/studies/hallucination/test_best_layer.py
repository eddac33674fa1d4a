"""The layer that is probed is chosen by training rows alone."""

import numpy as np
import pytest

from fluoroscope.studies.hallucination.detection.best_layer import BestLayer
from fluoroscope.studies.hallucination.detection.cross_validation import (
    CrossValidation,
    cross_validate,
)
from fluoroscope.studies.hallucination.detection.detectors import Logistic
from fluoroscope.studies.hallucination.detection.logistic import learn_logistic
from fluoroscope.studies.hallucination.detection.scores import auroc


def states(n=120, layers=4, d=6, told_by=None, seed=0):
    luck = np.random.default_rng(seed)
    labels = luck.random(n) < 0.5
    x = luck.normal(size=(n, layers, d))
    if told_by is not None:
        x[:, told_by, 0] += 3 * labels
    return x, labels, np.arange(n) // 2


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_it_is_the_probe_of_the_layer_that_tells(layer):
    x, labels, groups = states(told_by=layer)
    found = BestLayer().fit(x[:80], labels[:80], groups[:80], 7).scores(x[80:])
    alone = Logistic().fit(x[:80, layer], labels[:80], groups[:80], 7).scores(x[80:, layer])
    np.testing.assert_array_equal(found, alone)


def test_the_best_of_many_layers_of_noise_is_at_chance_and_not_at_the_best_of_many():
    plan, found, picked = CrossValidation(0, 3, 1), [], []
    for seed in range(6):
        x, labels, groups = states(layers=5, d=2, seed=seed)
        found.append(auroc(cross_validate(BestLayer((0.1,)), x, labels, groups, plan), 0, 2).value)
        probes = [
            cross_validate(Logistic((0.1,)), x[:, layer], labels, groups, plan)
            for layer in range(5)
        ]
        picked.append(max(auroc(probe, 0, 2).value for probe in probes))
    assert np.mean(found) < 0.54
    assert np.mean(picked) > 0.57


def test_a_layer_without_differences_is_not_looked_at():
    x, labels, groups = states(told_by=1)
    x[:, 0] = 1.0
    x[:, 1, 5] = 2.0
    fitted = BestLayer().fit(x, labels, groups, 0)
    assert fitted.constant == (1 * 6 + 5,)
    nothing = BestLayer().fit(np.ones_like(x), labels, groups, 0)
    np.testing.assert_allclose(nothing.scores(x), labels.mean())


def test_the_loss_of_inner_folds_is_lower_where_more_is_told():
    x, labels, groups = states(told_by=0)
    losses = [learn_logistic(x[:, i], labels, groups, (0.1, 1.0), 0)[1] for i in (0, 1)]
    assert losses[0] < 0.5 * losses[1]
