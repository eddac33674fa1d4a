import math

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.matching import NONE
from fluoroscope.features.matching_nulls import random_rotation
from fluoroscope.features.matching_ratios import layer_ratios, matching_ratios, matching_row
from fluoroscope.features.sae_matching import MatchingConfig, match_saes
from fluoroscope.features.top_matches import Directions
from tests.features.matching_data import order_of, sae_of, weights

N_A, N_B, D, N_SHARED = 160, 120, 64, 60


def planted():
    """Two SAEs, and for each latent of the first its copy in the second, or NONE."""
    decoder_a, encoder_a = weights(N_A, D, 1), weights(N_A, D, 2)
    decoder_b, encoder_b = weights(N_B, D, 3), weights(N_B, D, 4)
    copied, places = order_of(N_A, 5)[:N_SHARED], order_of(N_B, 6)[:N_SHARED]
    decoder_b[places], encoder_b[places] = 3 * decoder_a[copied], encoder_a[copied]
    truth = np.full(N_A, NONE)
    truth[copied] = places
    return sae_of(decoder_a, encoder_a), sae_of(decoder_b, encoder_b), truth


@pytest.fixture(scope="module")
def world():
    a, b, truth = planted()
    return match_saes(a, b), truth


def test_a_copied_part_is_what_is_shared_and_in_its_places(world):
    found, truth = world
    is_copied, copies = truth != NONE, truth[truth != NONE]
    is_copy = np.isin(np.arange(N_B), copies)
    for kind in (found.decoder, found.encoder):
        np.testing.assert_array_equal(kind.of_a.cosines[:, 0] > 0.7, is_copied)
        np.testing.assert_array_equal(kind.of_b.cosines[:, 0] > 0.7, is_copy)
        np.testing.assert_array_equal(kind.of_a.indices[is_copied, 0], copies)
        np.testing.assert_array_equal(truth[kind.of_b.indices[is_copy, 0]], np.flatnonzero(is_copy))
        pairs = kind.one_to_one
        shared = pairs.cosines > 0.7
        np.testing.assert_array_equal(pairs.latents_a[shared], np.flatnonzero(is_copied))
        np.testing.assert_array_equal(pairs.latents_b[shared], copies)
    np.testing.assert_array_equal(found.paired_of_a, is_copied)
    np.testing.assert_array_equal(found.paired_of_b, is_copy)
    np.testing.assert_array_equal(
        found.decoder.one_to_one.latents_a[found.paired_one_to_one], np.flatnonzero(is_copied)
    )


def test_every_ratio_is_the_planted_one_over_the_side_it_is_of(world):
    ratios = matching_ratios(world[0])
    for name in ("decoder_shared_a_to_b", "encoder_one_to_one_of_a", "paired_a_to_b"):
        assert ratios[name].value == N_SHARED / N_A
    for name in ("encoder_shared_b_to_a", "decoder_one_to_one_of_b", "paired_b_to_a"):
        assert ratios[name].value == N_SHARED / N_B
    for name in ("decoder_one_to_one", "encoder_one_to_one", "paired_one_to_one"):
        assert ratios[name].value == N_SHARED / min(N_A, N_B)
    assert all(one.low <= one.value <= one.high for one in ratios.values())


def test_nothing_is_shared_by_chance(world):
    row = matching_row(world[0])
    for name in ("random", "decoder_rotated", "encoder_rotated"):
        assert row[f"{name}_a_to_b"] == row[f"{name}_b_to_a"] == 0
    assert row["decoder_own_a"] == row["decoder_own_b"] == 0
    assert 0 < row["chance_a_to_b"] < 1e-6
    assert row["mean_random_a_to_b"] == pytest.approx(row["expected_maximum_a_to_b"], abs=0.02)
    assert row["approximate_maximum_b_to_a"] > row["expected_maximum_b_to_a"]


def test_a_row_is_flat_and_of_finite_numbers(world):
    row = matching_row(world[0])
    assert all(isinstance(value, float | int | str | bool) for value in row.values())
    # Indices of SAEs of two widths have nothing to say.
    assert math.isnan(row.pop("decoder_same_index_a_to_b"))
    assert all(math.isfinite(value) for value in row.values())
    assert (row["latents_a"], row["latents_b"], row["d_model"]) == (N_A, N_B, D)


def test_the_other_way_round_every_number_changes_sides():
    a, b, _ = planted()
    there, back = (matching_ratios(match_saes(*pair)) for pair in ((a, b), (b, a)))
    for kind in ("decoder", "encoder"):
        for name in ("shared", "mean_max"):
            assert there[f"{kind}_{name}_a_to_b"] == back[f"{kind}_{name}_b_to_a"]
        assert there[f"{kind}_own_a"] == back[f"{kind}_own_b"]
        assert there[f"{kind}_one_to_one"] == back[f"{kind}_one_to_one"]
    assert there["paired_a_to_b"] == back["paired_b_to_a"]


def test_sparse_candidates_find_the_same_planted_pairs():
    a, b, truth = planted()
    found = match_saes(a, b, MatchingConfig(exact_up_to=0, n_candidates=6, k=2))
    pairs = found.decoder.one_to_one
    assert pairs.n_candidates == 6
    assert found.decoder.of_a.indices.shape == (N_A, 2)
    np.testing.assert_array_equal(
        pairs.latents_a[found.paired_one_to_one], np.flatnonzero(truth != NONE)
    )
    row = matching_row(found)
    assert row["decoder_one_to_one_upper_bound"] >= row["decoder_one_to_one_total"]


def test_decoders_that_agree_without_their_encoders_are_no_pairs():
    decoder = weights(80, D, 1)
    a, b = sae_of(decoder, weights(80, D, 2)), sae_of(decoder, weights(80, D, 3))
    ratios = matching_ratios(match_saes(a, b))
    assert ratios["decoder_shared_a_to_b"].value == ratios["decoder_one_to_one"].value == 1
    assert ratios["encoder_shared_a_to_b"].value == 0
    assert ratios["paired_one_to_one"].value == 0
    # By nearest directions a few agree by chance.
    assert ratios["paired_a_to_b"].value < 0.1


def test_an_sae_shares_all_with_itself_and_nothing_with_its_rotated_copy():
    decoder, encoder = weights(100, D, 1), weights(100, D, 2)
    turn = torch.from_numpy(random_rotation(D, 9))
    a, turned = sae_of(decoder, encoder), sae_of(decoder @ turn, encoder @ turn)
    itself, rotated = (matching_row(match_saes(a, other)) for other in (a, turned))
    for name in ("decoder_shared_a_to_b", "encoder_one_to_one", "paired_b_to_a"):
        assert itself[name] == 1
        assert rotated[name] == 0
    assert rotated["decoder_mean_max_a_to_b"] == pytest.approx(
        rotated["decoder_mean_rotated_a_to_b"], abs=0.02
    )


def test_an_sae_that_says_things_twice_is_seen_in_its_own_control():
    once = weights(50, D, 1)
    a = sae_of(torch.cat([once, once]), weights(100, D, 2))
    b = sae_of(once, weights(50, D, 3))
    ratios = matching_ratios(match_saes(a, b))
    assert ratios["decoder_own_a"].value == 1
    assert ratios["decoder_own_b"].value == 0
    # All of a is near something of b, but only half of it has a partner.
    assert ratios["decoder_shared_a_to_b"].value == 1
    assert ratios["decoder_one_to_one_of_a"].value == 0.5
    assert ratios["decoder_one_to_one"].value == 1


def test_dead_latents_are_left_out_and_counted():
    a, b, truth = planted()
    with torch.no_grad():
        a.W_enc_T[np.flatnonzero(truth != NONE)[:10]] = 0
    dead_b = np.zeros(N_B, bool)
    dead_b[truth[truth != NONE][10:15]] = True
    found = match_saes(a, b, dead_b=dead_b)
    row = matching_row(found)
    assert (row["dead_a"], row["dead_b"]) == (10, 5)
    assert row["decoder_shared_a_to_b"] == (N_SHARED - 15) / (N_A - 10)
    assert row["paired_b_to_a"] == (N_SHARED - 15) / (N_B - 5)
    assert row["paired_one_to_one"] == (N_SHARED - 15) / (N_B - 5)
    assert (found.decoder.of_a.indices[~found.live_a] == NONE).all()
    assert not np.isin(found.decoder.of_a.indices, np.flatnonzero(dead_b)).any()


def test_ratios_of_layers_are_those_of_their_pairs():
    a, b, _ = planted()
    decoders = [Directions.of(one.W_dec) for one in (a, b)]
    found = layer_ratios(decoders, decoders)
    np.testing.assert_allclose(found.a_to_b, [[1, N_SHARED / N_A], [N_SHARED / N_B, 1]])
    np.testing.assert_allclose(found.b_to_a, found.a_to_b.T)
    assert found.chance < 1e-6
    with pytest.raises(ConfigError, match="got 2 and 0"):
        layer_ratios(decoders, [])


def test_what_is_shared_in_its_own_place_is_told_from_what_has_moved():
    first = weights(60, D, 1)
    # Of 50 that are shared 20 stay where they were; the last 10 are others.
    later = torch.cat([first[:20], first[20:50].roll(1, 0), weights(10, D, 2)])
    dead = np.zeros(60, bool)
    dead[:4] = True
    rows = [Directions.of(first, dead), Directions.of(later), Directions.of(weights(40, D, 3))]
    same = layer_ratios(rows[:1], rows).same_index
    assert same[0, :2].tolist() == [1, 16 / 46]
    assert math.isnan(same[0, 2])
    apart = [Directions.of(weights(60, D, seed)) for seed in (4, 5)]
    assert math.isnan(layer_ratios(apart[:1], apart[1:]).same_index[0, 0])
    a, b = sae_of(first, weights(60, D, 6)), sae_of(later, weights(60, D, 7))
    assert matching_row(match_saes(a, b, dead_a=dead))["decoder_same_index_a_to_b"] == 16 / 46
    assert matching_row(match_saes(a, b))["decoder_same_index_a_to_b"] == 20 / 50


def test_saes_that_cannot_be_matched_are_refused():
    a, b = sae_of(weights(8), weights(8)), sae_of(weights(8, 32), weights(8, 32))
    with pytest.raises(ConfigError, match="d_model 16, the other 32"):
        match_saes(a, b)
    with pytest.raises(ConfigError, match="each of the 8 latents, got 3"):
        match_saes(a, a, dead_a=np.zeros(3, bool))
    with pytest.raises(ConfigError, match="All 8 latents"):
        match_saes(a, a, dead_b=np.ones(8, bool))
