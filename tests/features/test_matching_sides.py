"""Numbers of a matching that are told apart only where the two SAEs differ in size and nearness."""

import numpy as np
import pytest
import torch

from fluoroscope.features.matching_nulls import (
    approximate_maximum,
    chance_above,
    expected_maximum,
)
from fluoroscope.features.matching_ratios import layer_ratios, matching_ratios, matching_row
from fluoroscope.features.sae_matching import MatchingConfig, match_saes
from tests.features.matching_data import directions, sae_of, weights

D = 64


def near(rows, cosine, seed):
    """Rows at about this cosine with the given ones."""
    other = torch.nn.functional.normalize(weights(len(rows), rows.shape[1], seed), dim=1)
    rows = torch.nn.functional.normalize(rows, dim=1)
    return cosine * rows + (1 - cosine**2) ** 0.5 * other


def test_pairs_that_agree_are_near_enough_by_decoder_and_by_encoder():
    decoder, encoder = weights(40, D, 1), weights(40, D, 2)
    other_decoder, other_encoder = decoder.clone(), encoder.clone()
    other_decoder[:10] = near(decoder[:10], 0.55, 3)
    other_encoder[10:20] = near(encoder[10:20], 0.55, 4)
    found = match_saes(sae_of(decoder, encoder), sae_of(other_decoder, other_encoder))
    for kind in (found.decoder, found.encoder):
        np.testing.assert_array_equal(kind.one_to_one.latents_b, np.arange(40))
    np.testing.assert_array_equal(found.paired_one_to_one, np.arange(40) >= 20)
    # By nearest directions the decoder alone has to be near.
    np.testing.assert_array_equal(found.paired_of_a, np.arange(40) >= 10)


def test_latents_without_a_pair_count_on_the_side_that_has_them():
    small = weights(30, D, 1)
    large = torch.cat([small[:12], weights(60, D, 2)])
    a, b = sae_of(small, small), sae_of(large, large)
    there, back = (matching_ratios(match_saes(*sides)) for sides in ((a, b), (b, a)))
    assert there["decoder_one_to_one_of_a"].value == 12 / 30
    assert there["decoder_one_to_one_of_b"].value == 12 / 72
    for name in ("one_to_one_of_{}", "own_{}", "mean_own_{}"):
        for one, other in ("ab", "ba"):
            key, mirrored = (f"decoder_{name.format(side)}" for side in (one, other))
            assert there[key].value == pytest.approx(back[mirrored].value, rel=1e-6)
    assert there["decoder_mean_own_a"].value < there["decoder_mean_own_b"].value


def test_chance_on_a_side_is_of_as_many_as_the_other_side_has():
    a, b = sae_of(weights(400, 32, 1), weights(400, 32, 2)), sae_of(*[weights(25, 32, 3)] * 2)
    threshold = 0.45
    found = match_saes(a, b, MatchingConfig(threshold=threshold, null_draws=6))
    row = matching_row(found)
    for way, own, other in (("a_to_b", 400, 25), ("b_to_a", 25, 400)):
        chance = chance_above(threshold, other, 32)
        assert row[f"chance_{way}"] == chance
        assert row[f"expected_maximum_{way}"] == expected_maximum(other, 32)
        assert row[f"approximate_maximum_{way}"] == approximate_maximum(other, 32)
        # Draws share their other side, so that they spread more than as many that do not.
        reach = 8 * (chance * (1 - chance) / (6 * own)) ** 0.5
        for kind, null in (("", "random"), ("decoder_", "rotated"), ("encoder_", "rotated")):
            assert row[f"{kind}{null}_{way}"] == pytest.approx(chance, abs=reach)
            mean = row[f"{kind}mean_{null}_{way}"]
            assert mean == pytest.approx(expected_maximum(other, 32), abs=0.03)
    assert row["chance_b_to_a"] > 5 * row["chance_a_to_b"]


def test_chance_among_layers_is_that_of_the_largest():
    a = [directions(30, D), directions(50, D, 1)]
    for b, most in (([directions(20, D, 2), directions(90, D, 3)], 90), (a[:1], 50)):
        assert layer_ratios(a, b, 0.3).chance == chance_above(0.3, most, D)
