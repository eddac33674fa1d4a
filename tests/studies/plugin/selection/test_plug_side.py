"""A layer is found by what its weights do, and not by how loudly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_layers import Twist, even_labels
from scipy.stats import binom

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.models.single_layer.loading import load_layer
from fluoroscope.models.single_layer.one_token import one_token_layer
from fluoroscope.studies.plugin.selection.gradient_fit import (
    Fitting,
    GradientFitConfig,
    gradient_fit,
)
from fluoroscope.studies.plugin.selection.plug_side import (
    branch,
    plug_scores,
    semi_orthogonal,
)

D, D_LAYER, SEED = 6, 12, 3


def twists(strengths: list[float], direction: torch.Tensor) -> list[Twist]:
    """Each adds what |p along `direction|` is under the first draw of the map; others add what no
    label depends on.
    """
    out = torch.ones(D_LAYER)
    to_layer = semi_orthogonal(D_LAYER, D, SEED, 0)
    other = torch.linalg.svd(to_layer).U[:, -1]
    known = to_layer @ direction
    return [Twist(known if strength else other, out, strength or 0.5) for strength in strengths]


def test_a_layer_that_makes_labels_readable_is_found():
    pooled, labels, direction = even_labels(300, D)
    for best in (0, 3):
        layers = twists([0.5 if layer == best else 0.0 for layer in range(4)], direction)
        found = plug_scores(pooled, labels, layers, np.ones(4), D_LAYER, SEED, n_draws=1)
        assert found.loo.argmax() == found.logme.argmax() == best
        assert found.loo[best] > 0.1 + 5 * found.loo_se[best]
        others = np.delete(np.arange(4), best)
        assert (np.abs(found.loo[others]) < 0.02).all()


def test_a_layer_that_writes_a_thousand_times_more_gains_nothing_by_it():
    pooled, labels, direction = even_labels(200, D)
    layers = twists([0.5, 500.0], direction)
    found = plug_scores(pooled, labels, layers, np.ones(2), D_LAYER, SEED, n_draws=1)
    assert found.loo[1] == pytest.approx(found.loo[0], rel=1e-3)
    assert found.logme[1] == pytest.approx(found.logme[0], rel=1e-3)


def test_a_layer_that_adds_nothing_changes_nothing():
    pooled, labels, _ = even_labels(100, D)
    found = plug_scores(pooled, labels, [lambda x: x], np.ones(1), D_LAYER, SEED)
    assert found.loo[0] == pytest.approx(0, abs=1e-9)
    assert found.logme[0] == pytest.approx(0, abs=1e-9)


def test_maps_are_orthonormal_along_their_shorter_side_and_differ_by_draw():
    for shape in [(12, 6), (6, 12)]:
        tall = semi_orthogonal(*shape, SEED, 0)
        product = tall.T @ tall if shape[0] > shape[1] else tall @ tall.T
        torch.testing.assert_close(product, torch.eye(6), atol=1e-5, rtol=0)
    assert not torch.equal(semi_orthogonal(12, 6, SEED, 0), semi_orthogonal(12, 6, SEED, 1))


def test_vectors_enter_with_the_root_mean_square_that_is_asked_for():
    pooled, _, _ = even_labels(50, D)
    seen = []

    def layer(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    branch(layer, pooled, semi_orthogonal(D_LAYER, D, SEED, 0), 2.5)
    rms = torch.cat(seen).square().mean(dim=1).sqrt()
    assert float(rms.median()) == pytest.approx(2.5, rel=1e-5)
    # One factor for all: vectors keep their lengths beside each other.
    ratio = rms / pooled.norm(dim=1)
    torch.testing.assert_close(ratio, ratio[:1].expand(50), rtol=1e-4, atol=0)


def test_order_of_samples_changes_nothing_but_rounding():
    pooled, labels, direction = even_labels(120, D)
    layers = twists([0.5], direction)
    order = np.random.default_rng(0).permutation(120)
    one = plug_scores(pooled, labels, layers, np.ones(1), D_LAYER, SEED)
    other = plug_scores(
        pooled[torch.from_numpy(order)], labels[order], layers, np.ones(1), D_LAYER, SEED
    )
    np.testing.assert_allclose(one.loo, other.loo, rtol=1e-4)
    np.testing.assert_allclose(one.logme, other.logme, rtol=1e-4)


def test_shuffled_labels_choose_by_chance():
    n_tries, hits = 24, 0
    pooled, labels, direction = even_labels(80, D)
    layers = twists([0.0, 0.5, 0.0, 0.0], direction)
    layers[0].direction = layers[1].direction.roll(1)
    layers[2].direction = layers[1].direction.roll(2)
    for seed in range(n_tries):
        shuffled = np.random.default_rng(seed).permutation(labels)
        found = plug_scores(pooled, shuffled, layers, np.ones(4), D_LAYER, SEED, n_draws=1)
        hits += int(found.loo.argmax()) == 1
    low, high = binom.ppf([0.001, 0.999], n_tries, 1 / 4)
    assert low <= hits <= high


def test_layers_of_a_real_model_are_scored_both_ways_and_left_as_they_are(stories_folder: Path):
    pooled, labels, _ = even_labels(60, D)
    layers = [one_token_layer(load_layer(str(stories_folder), layer)) for layer in (0, 4)]
    before = [one.clone() for layer in layers for one in layer.parameters()]
    found = plug_scores(pooled, labels, layers, np.array([0.3, 1.1]), 64, SEED)
    fitting = Fitting(pooled[:40], labels[:40], pooled[40:], labels[40:])
    fit = gradient_fit(fitting, layers, 64, SEED, GradientFitConfig(n_steps=5))
    for values in (*found, *fit):
        assert np.isfinite(values).all()
    assert found.loo[0] != found.loo[1]
    after = [one for layer in layers for one in layer.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_another_number_of_layers_and_infinities_are_errors():
    pooled, labels, _ = even_labels(40, D)
    with pytest.raises(ConfigError, match="1 layers were given for 2"):
        plug_scores(pooled, labels, [lambda x: x], np.ones(2), D_LAYER, SEED)
    with pytest.raises(ConfigError, match="more layers than the 1"):
        plug_scores(pooled, labels, [lambda x: x] * 2, np.ones(1), D_LAYER, SEED)
    with pytest.raises(NumericsError, match="layer 0 adds is not finite"):
        plug_scores(pooled, labels, [lambda x: x / 0], np.ones(1), D_LAYER, SEED)
