"""A map of decoders: all layers on one plane, what was left out counted, how far to trust it."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features import decoder_map as module
from fluoroscope.features.decoder_map import decoder_map, unit_rows


def decoders(n=60, d=12, layers=3, seed=0):
    """Layers that share their main directions, each with an offset of its own."""
    random = np.random.default_rng(seed)
    stretch = np.linspace(2, 0.3, d)
    return {
        f"layer {i}": (random.standard_normal((n, d)) * stretch + 0.3 * i).astype(np.float32)
        for i in range(layers)
    }


def together(found):
    return np.concatenate(list(found.places.values()))


def distances(places):
    return np.linalg.norm(places[:, None] - places[None], axis=-1)


def test_the_plane_is_that_of_numpys_svd_up_to_signs():
    given = decoders()
    units = unit_rows(np.concatenate(list(given.values())))
    left, sizes, _ = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
    found = decoder_map(given)
    np.testing.assert_allclose(np.abs(together(found)), np.abs(left * sizes)[:, :2], atol=1e-5)
    np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:2], atol=1e-8)


def test_signs_too_are_those_of_scikit_learn_and_of_no_accident():
    given = decoders(seed=1)
    units = unit_rows(np.concatenate(list(given.values())))
    peer = PCA(n_components=2, svd_solver="covariance_eigh").fit_transform(units)
    np.testing.assert_allclose(together(decoder_map(given)), peer, atol=1e-5)


def test_blocks_of_rows_change_nothing(monkeypatch):
    whole = decoder_map(decoders())
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(together(decoder_map(decoders())), together(whole), atol=1e-6)


def test_all_layers_lie_in_one_frame():
    """The same rows lie at the same place whichever layer they are given as."""
    given = decoders()
    given["copy"] = given["layer 1"][::-1] * 3
    found = decoder_map(given)
    np.testing.assert_allclose(found.places["copy"], found.places["layer 1"][::-1], atol=1e-6)
    apart = decoder_map({"layer 2": given["layer 2"]})
    assert not np.allclose(apart.places["layer 2"], found.places["layer 2"], atol=1e-2)


def test_a_rotation_of_all_decoders_leaves_distances_alone():
    given = decoders()
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((12, 12))).Q
    turned = {name: rows @ turn for name, rows in given.items()}
    one, other = (together(decoder_map(rows)) for rows in (given, turned))
    np.testing.assert_allclose(distances(one), distances(other), atol=1e-5)


def test_rows_that_are_dead_or_0_are_left_out_and_counted():
    given = decoders()
    given["layer 1"][[4, 9]] = 0
    live = {name: np.ones(60, bool) for name in given}
    live["layer 1"][[9, 20, 21]] = False
    dots = decoder_map(given, live=live).layers["layer 1"]
    assert (dots.n_dead, dots.n_zero, dots.n_not_drawn) == (3, 1, 0)
    np.testing.assert_array_equal(dots.latents, np.setdiff1d(np.arange(60), [4, 9, 20, 21]))
    assert len(dots.places) == 56
    assert decoder_map(given).layers["layer 1"].n_zero == 2


def test_fewer_dots_are_a_part_of_the_map_with_all():
    given = decoders()
    whole, part = decoder_map(given), decoder_map(given, most_dots=20, seed=3)
    for name, dots in part.layers.items():
        assert (len(dots.latents), dots.n_not_drawn) == (20, 40)
        np.testing.assert_allclose(dots.places, whole.places[name][dots.latents], atol=1e-6)
    other = decoder_map(given, most_dots=20, seed=4).layers["layer 0"].latents
    assert not np.array_equal(other, part.layers["layer 0"].latents)


def test_lengths_of_rows_mean_nothing_even_tiny_and_huge_ones():
    given = decoders()
    scaled = {name: rows.astype(np.float64) for name, rows in given.items()}
    scaled["layer 0"] *= np.logspace(-200, 200, 60)[:, None]
    np.testing.assert_allclose(
        together(decoder_map(given)), together(decoder_map(scaled)), atol=1e-6
    )


def test_a_plane_that_holds_all_keeps_all_neighbours_and_a_random_one_fewer():
    flat = np.zeros((200, 40), np.float32)
    flat[:, :2] = np.random.default_rng(0).standard_normal((200, 2))
    flat[:, 2:] = 0.01 * np.random.default_rng(1).standard_normal((200, 38))
    found = decoder_map({"a": flat[:100], "b": flat[100:]})
    assert found.neighbours_kept > 0.95
    assert sum(found.explained) > 0.95
    round_ones = np.random.default_rng(2).standard_normal((400, 40))
    noise = decoder_map({"a": round_ones}, n_judged=300)
    assert noise.n_judged == 300
    assert noise.neighbours_kept_by_chance < noise.neighbours_kept < 0.75


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_a_map_is_the_same_for_the_same_seed(method):
    if method == "umap":
        pytest.importorskip("umap", reason="the extra `umap` is not installed")
    one, again = (decoder_map(decoders(n=30), method, seed=2, most_dots=25) for _ in range(2))
    np.testing.assert_array_equal(together(one), together(again))
    assert together(one).shape == (75, 2)
    assert np.isfinite(together(one)).all()
    assert (one.explained is None) == (method != "pca")
    assert one.neighbours_kept == again.neighbours_kept > 0.6


def test_umap_without_its_package_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install fluoroscope\[umap\]"):
        decoder_map(decoders(), "umap")


def test_what_has_no_map_is_refused():
    broken = decoders()
    broken["layer 1"][3, 3] = np.nan
    with pytest.raises(NumericsError, match="decoder of layer 1 holds NaN"):
        decoder_map(broken)
    with pytest.raises(ConfigError, match=r"one width, got .*'b': 5"):
        decoder_map({"a": np.ones((9, 4)), "b": np.ones((9, 5))})
    with pytest.raises(ConfigError, match="4 dots or more, got 3"):
        decoder_map({"a": np.eye(3), "b": np.zeros((9, 3))})
    with pytest.raises(ConfigError, match="each of 60 rows of layer 1: none"):
        decoder_map(decoders(), live={"layer 0": np.ones(60, bool)})
    with pytest.raises(ConfigError, match="most_dots must be 1 or more"):
        decoder_map(decoders(), most_dots=0)


def test_rows_that_are_all_the_same_have_no_variance_to_explain():
    row = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    found = decoder_map({"a": np.tile(row, (50, 1))})
    assert found.explained == (0.0, 0.0)
    # A last digit of one row is not yet rounding.
    rows = np.tile(row, (50, 1))
    rows[7, 0] *= 1 + 2.0**-20
    assert decoder_map({"a": rows}).explained == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(("n", "expected"), [(4, 1), (10, 4), (31, 15), (60, 15)])
def test_fewer_neighbours_than_half_of_the_dots_are_compared(n, expected):
    rows = np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    assert decoder_map({"a": rows}).n_neighbours == expected
