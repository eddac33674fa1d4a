"""Rows of decoders that are matched one to one, and followed through the layers of a map."""

from itertools import permutations

import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.decoder_map import decoder_map, unit_rows
from fluoroscope.features.decoder_paths import decoder_paths, matched_rows


def rows(n, d=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_no_other_matching_has_a_larger_sum_of_cosines():
    source, target = rows(4), rows(6, seed=1)
    near = unit_rows(source) @ unit_rows(target).T
    best = max(sum(near[range(4), list(chosen)]) for chosen in permutations(range(6), 4))
    found = matched_rows(source, target)
    assert found.cosines.sum() == pytest.approx(best, abs=1e-5)
    np.testing.assert_allclose(found.cosines, near[range(4), found.rows], atol=1e-6)
    assert len(set(found.rows)) == 4


def test_a_shuffled_copy_is_found_again_and_chance_does_not_find_it():
    source = rows(80, d=32)
    order = np.random.default_rng(1).permutation(120)
    target = np.concatenate([source, rows(40, d=32, seed=2)])[order]
    found = matched_rows(source * 5, target)
    np.testing.assert_array_equal(order[found.rows], np.arange(80))
    np.testing.assert_allclose(found.cosines, 1, atol=1e-5)
    assert found.cosines_by_chance.max() < 0.9


def test_paths_lead_through_the_dots_of_the_map():
    first = rows(50)
    orders = [np.random.default_rng(i).permutation(50) for i in (1, 2)]
    decoders = {"0": first, "1": first[orders[0]], "2": first[orders[0]][orders[1]]}
    decoders["1"] = np.concatenate([decoders["1"], np.zeros((3, 8), np.float32)])
    found = decoder_map(decoders)
    paths = decoder_paths(decoders, found, n=30, seed=4)
    assert paths.latents.shape == (3, 30)
    assert (paths.layers, paths.n_not_followed) == (("0", "1", "2"), 20)
    for name, latents, places in zip(paths.layers, paths.latents, paths.places, strict=True):
        # A column is one direction all the way, so it is one place.
        np.testing.assert_allclose(decoders[name][latents], first[paths.latents[0]])
        np.testing.assert_allclose(places, paths.places[0], atol=1e-6)
        np.testing.assert_array_equal(found.places[name][latents], places)
    np.testing.assert_allclose(paths.cosines, 1, atol=1e-5)
    assert paths.cosines_by_chance.shape == paths.cosines.shape == (2, 30)
    assert paths.cosines_by_chance.max() < 0.99


def test_chance_is_a_matching_too():
    """Of two dictionaries that have nothing in common the best matching is far from 0."""
    found = matched_rows(rows(150, d=16), rows(250, d=16, seed=1))
    assert found.cosines.mean() > 0.4
    assert found.cosines_by_chance.mean() == pytest.approx(found.cosines.mean(), abs=0.02)
    # A crowded target offers less, by chance as well.
    crowded = np.repeat(rows(50, d=16, seed=2), 5, axis=0) + 0.01 * rows(250, d=16, seed=3)
    less = matched_rows(rows(150, d=16), crowded)
    assert less.cosines_by_chance.mean() == pytest.approx(less.cosines.mean(), abs=0.02)
    assert less.cosines_by_chance.mean() < found.cosines_by_chance.mean() - 0.02
    other = matched_rows(rows(150, d=16), crowded, seed=1)
    np.testing.assert_array_equal(other.rows, less.rows)
    assert (other.cosines_by_chance != less.cosines_by_chance).any()


def test_the_smallest_layer_says_how_many_are_followed():
    decoders = {"a": rows(40), "b": rows(15, seed=1), "c": rows(30, seed=2)}
    paths = decoder_paths(decoders, decoder_map(decoders))
    assert paths.latents.shape == (3, 15)
    assert paths.n_not_followed == 25
    assert sorted(paths.latents[1]) == list(range(15))
    again = decoder_paths(decoders, decoder_map(decoders))
    np.testing.assert_array_equal(again.latents, paths.latents)


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(ConfigError, match="Each of 5 rows needs one of its own; the target has 4"):
        matched_rows(rows(5), rows(4))
    with pytest.raises(ConfigError, match="the map has 1"):
        decoder_paths({"a": rows(9)}, decoder_map({"a": rows(9)}))
    with_none = {"a": rows(9), "b": np.zeros((9, 8), np.float32)}
    with pytest.raises(ConfigError, match="no dots"):
        decoder_paths(with_none, decoder_map(with_none))
