"""ILM against a plain version of its steps, its defects kept, and signals that it must find."""

from itertools import combinations

import numpy as np
import pytest
import torch
from planted_layers import planted_features
from scipy.stats import binom
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import train_test_split

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.plugin.selection.features import LayerFeatures
from fluoroscope.studies.plugin.selection.ilm import (
    drawn,
    fisher_ratio,
    ilm_scores,
    label_correlations,
    silhouette,
)
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig


def plain_fisher(rows: np.ndarray, labels: np.ndarray) -> float:
    classes = sorted(set(labels.tolist()))
    centres = {one: rows[labels == one].mean(axis=0) for one in classes}
    between = [np.sum((centres[a] - centres[b]) ** 2) for a, b in combinations(classes, 2)]
    within = [
        np.mean([np.sum((row - centres[one]) ** 2) for row in rows[labels == one]])
        for one in classes
    ]
    return float(np.mean(between) / np.sum(within))


def plain_probe(rows: np.ndarray, labels: np.ndarray, seed: int) -> float:
    train, test, y, truth = train_test_split(
        rows, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    return float(LogisticRegression(max_iter=300, C=1.0).fit(train, y).score(test, truth))


@pytest.mark.parametrize(("n_classes", "d"), [(2, 24), (4, 200)])
def test_the_code_scores_are_those_of_its_plain_steps(n_classes: int, d: int):
    features = planted_features(2, n_layers=4, d=d, n_classes=n_classes)
    found = ilm_scores(features, IlmConfig(), seed=7)
    ordered = features.by_id()
    for layer in range(4):
        rows = ordered.layer(layer)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        probe = plain_probe(rows, ordered.labels, 7)
        fisher = plain_fisher(rows, ordered.labels)
        closeness = silhouette_score(rows, ordered.labels)
        mixed = 0.4 * probe + 0.3 * fisher + 0.3 * closeness
        assert found.probe[layer] == pytest.approx(probe)
        assert found.fisher[layer] == pytest.approx(fisher)
        assert found.silhouette[layer] == pytest.approx(closeness)
        assert found.mixed[layer] == pytest.approx(mixed)
        assert found.final[layer] == pytest.approx(mixed * (1 - 0.3 * layer / 3))
        assert found.probe_se[layer] == pytest.approx((probe * (1 - probe) / 24) ** 0.5)


def test_the_manual_scores_are_those_of_the_components_along_the_label():
    features = planted_features(2, n_layers=3)
    config = IlmConfig(n_pcs=8, top_pc=2, depth_bias=0)
    found = ilm_scores(features, config, seed=7, style="manual")
    ordered = features.by_id()
    rows = ordered.layer(2) / np.linalg.norm(ordered.layer(2), axis=1, keepdims=True)
    pcs = PCA(8).fit_transform(rows)
    train, _ = train_test_split(
        np.arange(120), test_size=0.2, stratify=ordered.labels, random_state=7
    )
    along = [abs(np.corrcoef(pc[train], ordered.labels[train])[0, 1]) for pc in pcs.T]
    kept = pcs[:, np.argsort(along)[-2:]]
    assert found.fisher[2] == pytest.approx(plain_fisher(kept, ordered.labels))
    assert found.silhouette[2] == pytest.approx(silhouette_score(kept, ordered.labels))
    assert found.probe[2] == pytest.approx(plain_probe(kept, ordered.labels, 7))


def test_correlations_are_the_largest_over_classes_against_the_rest():
    labels = np.array([0, 0, 1, 1, 2, 2] * 3)
    column = (labels == 2).astype(float)
    found = label_correlations(np.stack([column, -column, np.ones(18)], axis=1), labels)
    np.testing.assert_allclose(found, [1.0, 1.0, 0.0])


def test_weights_of_the_mixture_need_not_add_up_to_one():
    features = planted_features(2, n_layers=3)
    one = ilm_scores(features, IlmConfig(), 0)
    other = ilm_scores(features, IlmConfig(alpha=4, beta=3, gamma=3), 0)
    np.testing.assert_allclose(one.mixed, other.mixed)


def test_without_depth_bias_the_largest_mixture_is_taken():
    features = planted_features(5)
    found = ilm_scores(features, IlmConfig(depth_bias=0), 0)
    assert found.best == int(found.mixed.argmax()) == 5
    np.testing.assert_array_equal(found.final, found.mixed)


def test_depth_pays_for_a_negative_score_in_the_code_as_in_the_seed():
    # Neighbours on an arc are of different classes: the same negative silhouette at each layer.
    angles = torch.linspace(0, 1.5, 40)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    features = LayerFeatures(
        (rows,) * 3, np.arange(40) % 2, tuple(f"{i:02d}" for i in range(40)), np.ones(3)
    )
    found = ilm_scores(features, IlmConfig(score_mode="silhouette"), 0)
    assert found.silhouette[0] == found.silhouette[2] < 0
    assert found.best == 2


def test_layers_that_are_left_out_score_0_in_the_code_and_are_never_taken_by_the_manual():
    features = planted_features(1, n_layers=5)
    config = IlmConfig(layer_stride=2, score_mode="silhouette")
    code = ilm_scores(features, config, 0)
    manual = ilm_scores(features, config, 0, style="manual")
    assert code.final[[1, 3]].tolist() == [0.0, 0.0]
    assert manual.final[[1, 3]].tolist() == [-np.inf, -np.inf]
    assert np.isnan(code.probe[1])
    assert np.isnan(code.correlations[1]).all()


@pytest.mark.parametrize("mode", ["probe", "fisher", "silhouette", "mixed", "robust"])
@pytest.mark.parametrize("style", ["code", "manual"])
def test_a_planted_layer_is_found_in_every_mode(mode: str, style: str):
    config = IlmConfig(score_mode=mode, depth_bias=0, weighs_confidence=mode == "robust")
    for best in (2,) if mode == "robust" else (1, 2):
        features = planted_features(best, n_layers=3, n_classes=3)
        assert ilm_scores(features, config, 0, style=style).best == best


@pytest.mark.parametrize("style", ["code", "manual"])
def test_order_changes_nothing_and_rotation_nothing_but_rounding(style: str):
    features = planted_features(2, n_layers=3)
    random = np.random.default_rng(1)
    expected = ilm_scores(features, IlmConfig(), 0, style=style)
    mixed_up = features.take(random.permutation(120).tolist())
    np.testing.assert_array_equal(
        ilm_scores(mixed_up, IlmConfig(), 0, style=style).final, expected.final
    )
    rotation = torch.from_numpy(np.linalg.qr(random.normal(size=(24, 24)))[0])
    turned = tuple((one.double() @ rotation).float() for one in features.states)
    found = ilm_scores(
        LayerFeatures(turned, features.labels, features.ids, features.input_rms),
        IlmConfig(),
        0,
        style=style,
    )
    np.testing.assert_allclose(found.final, expected.final, atol=1e-5)


def test_shuffled_labels_choose_by_chance():
    n_layers, n_tries, hits = 3, 40, 0
    for seed in range(n_tries):
        features = planted_features(2, n_layers=n_layers, n=60, d=6, seed=seed)
        shuffled = np.random.default_rng([seed, 1]).permutation(features.labels)
        features = LayerFeatures(features.states, shuffled, features.ids, features.input_rms)
        hits += ilm_scores(features, IlmConfig(depth_bias=0), seed).best == 2
    low, high = binom.ppf([0.001, 0.999], n_tries, 1 / n_layers)
    assert low <= hits <= high


def test_a_draw_has_as_many_rows_of_every_class():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 6)
    rows = drawn(labels, IlmConfig(n_samples=30), 0)
    assert np.bincount(labels[rows]).tolist() == [10, 10, 6]
    plain = drawn(labels, IlmConfig(n_samples=30, is_stratified=False), 0)
    assert len(plain) == len(set(plain)) == 30
    assert drawn(labels, IlmConfig(n_samples=200), 0) == list(range(96))


def test_equal_rows_score_nothing():
    rows, labels = np.full((20, 3), 0.1), np.arange(20) % 2
    assert fisher_ratio(rows, labels) == silhouette(rows, labels) == 0.0


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="cannot be chosen from n_pcs=4"):
        build(IlmConfig, {"n_pcs": 4})
    with pytest.raises(ConfigError, match="all 0"):
        build(IlmConfig, {"alpha": 0, "beta": 0, "gamma": 0})
