"""Short trainings: the same start and batches for all layers, so that what differs is theirs."""

import numpy as np
import pytest
import torch
from planted_layers import even_labels
from torch import nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.plugin.selection.gradient_fit import (
    Fitting,
    GradientFitConfig,
    gradient_fit,
)

SHORT = GradientFitConfig(n_steps=80, batch_size=32, learning_rate=2e-2)


def fitting(n: int = 200, d: int = 5) -> Fitting:
    """A line tells the classes apart."""
    pooled, _, direction = even_labels(n, d)
    labels = (pooled @ direction > 0).long().numpy()
    half = n // 2
    return Fitting(pooled[:half], labels[:half], pooled[half:], labels[half:])


def test_a_layer_that_lets_the_signal_through_is_found():
    data = fitting()

    def blind(x: torch.Tensor) -> torch.Tensor:
        return x * 0 + 1

    for best in (0, 2):
        layers = [(lambda x: x) if layer == best else blind for layer in range(3)]
        found = gradient_fit(data, layers, 8, 0, SHORT)
        assert found.nll.argmin() == found.accuracy.argmax() == best
        assert found.accuracy[best] > 0.9
        # What sees nothing can say no more than how frequent the classes are.
        assert found.nll[1] == pytest.approx(np.log(2), abs=0.05)


def test_the_same_layer_twice_has_the_same_bits_and_its_place_plays_no_part():
    data = fitting()
    found = gradient_fit(data, [torch.tanh, torch.sin, torch.tanh], 8, 0, SHORT)
    assert found.nll[0] == found.nll[2] != found.nll[1]
    assert gradient_fit(data, [torch.sin], 8, 0, SHORT).nll[0] == found.nll[1]
    assert gradient_fit(data, [torch.sin], 8, 1, SHORT).nll[0] != found.nll[1]


def test_a_layer_is_left_as_it_is_and_keeps_no_gradient():
    layer = nn.Linear(8, 8)
    before = layer.weight.detach().clone()
    gradient_fit(fitting(), [layer], 8, 0, SHORT)
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None


def test_matching_makes_layers_that_differ_by_the_scale_they_read_alike():
    data = fitting()
    config = SHORT.model_copy(update={"is_rms_matched": True})
    layers = [torch.tanh, lambda x: torch.tanh(x / 10)]
    rms = np.array([0.5, 5.0])
    found = gradient_fit(data, layers, 8, 0, config, input_rms=rms)
    assert found.nll[1] == pytest.approx(found.nll[0], abs=1e-3)
    with pytest.raises(ConfigError, match="needs input_rms"):
        gradient_fit(data, layers, 8, 0, config)


def test_a_residual_form_can_do_without_its_layer():
    config = SHORT.model_copy(update={"is_residual": True})
    found = gradient_fit(fitting(), [lambda x: x * 0], 8, 0, config)
    assert found.accuracy[0] > 0.9


def test_a_training_that_breaks_down_is_not_a_number():
    found = gradient_fit(fitting(), [lambda x: x / 0, torch.tanh], 8, 0, SHORT)
    assert np.isnan(found.nll[0])
    assert np.isfinite(found.nll[1])
