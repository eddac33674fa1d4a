import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.features import matching_nulls as module
from fluoroscope.features.matching_nulls import (
    approximate_maximum,
    chance_above,
    expected_maximum,
    random_directions,
    random_null,
    random_rotation,
    rotated_null,
)
from fluoroscope.features.top_matches import Directions, nearest_within, top_matches
from tests.features.matching_data import directions, weights


@pytest.mark.parametrize("m", [1, 2, 5, 100, 10**6])
def test_in_three_dimensions_the_expected_maximum_is_known(m):
    # There a cosine is uniform on -1 to 1.
    assert expected_maximum(m, 3) == pytest.approx((m - 1) / (m + 1), abs=1e-9)
    assert chance_above(0.5, m, 3) == pytest.approx(1 - 0.75**m, abs=1e-12)


def test_in_two_dimensions_the_expected_maximum_is_known():
    # There an angle is uniform: 1 and 2 cosines are highest at 0 and at (2 / pi)^2.
    assert expected_maximum(1, 2) == pytest.approx(0, abs=1e-12)
    assert expected_maximum(2, 2) == pytest.approx(4 / np.pi**2, abs=1e-12)
    # Of many the nearest is at an angle of pi / m times an exponential number.
    assert expected_maximum(1000, 2) == pytest.approx(1 - (np.pi / 1000) ** 2, rel=1e-6)


@pytest.mark.parametrize(("m", "d"), [(1, 8), (30, 8), (400, 32), (2000, 12)])
def test_the_expected_maximum_is_what_draws_have(m, d):
    random = np.random.default_rng(0)
    rows = random.standard_normal((4000, m if m < 100 else 100, d))
    # The first of d coordinates of a random direction is its cosine with a fixed one; the
    # highest of m is drawn as the highest of several highest.
    cosines = rows[..., 0] / np.linalg.norm(rows, axis=-1)
    highest = cosines.max(1).reshape(-1, max(1, m // 100)).max(1)
    reach = 4 * highest.std() / len(highest) ** 0.5
    assert expected_maximum(m, d) == pytest.approx(highest.mean(), abs=reach)
    share = (highest > np.median(highest)).mean()
    spread = 4 * 0.5 / len(highest) ** 0.5
    assert chance_above(float(np.median(highest)), m, d) == pytest.approx(share, abs=spread)


def test_the_approximation_is_above_and_nears_with_size():
    ratios = [approximate_maximum(m, 4096) / expected_maximum(m, 4096) for m in (100, 10**4, 10**8)]
    assert ratios[0] > ratios[1] > ratios[2] > 1
    assert approximate_maximum(24576, 768) == pytest.approx((2 * np.log(24576) / 768) ** 0.5)


def test_small_chances_are_not_rounded_to_none():
    one = chance_above(0.7, 1, 64)
    assert 0 < one < 1e-9
    assert chance_above(0.7, 1000, 64) == pytest.approx(1000 * one)
    assert chance_above(-1.0, 3, 8) == 1


def test_random_directions_have_the_expected_maximum():
    found = random_null(300, 200, 32, seed=1, n_draws=20)
    assert len(found.of_a) == 20 * 300
    assert len(found.of_b) == 20 * 200
    assert found.of_a.mean() == pytest.approx(expected_maximum(200, 32), abs=0.003)
    assert found.of_b.mean() == pytest.approx(expected_maximum(300, 32), abs=0.003)


def test_a_sample_of_rows_has_the_same_law_and_a_seed_the_same_draws():
    some = random_null(300, 400, 32, seed=1, n_draws=20, n_rows=50)
    assert len(some.of_a) == len(some.of_b) == 20 * 50
    assert some.of_a.mean() == pytest.approx(expected_maximum(400, 32), abs=0.006)
    assert some.of_b.mean() == pytest.approx(expected_maximum(300, 32), abs=0.006)
    again, other = (random_null(300, 400, 32, seed, 20, 50) for seed in (1, 2))
    np.testing.assert_array_equal(some.of_a, again.of_a)
    assert (some.of_a != other.of_a).any()


def test_a_rotation_keeps_angles_and_loses_places():
    turn = random_rotation(24, 3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(24), atol=1e-5)
    rows = weights(120, d=24).numpy()
    before = nearest_within(Directions.of(weights(120, d=24)))
    after = nearest_within(Directions.of(weights(120, d=24) @ torch.from_numpy(turn)))
    np.testing.assert_array_equal(before.indices, after.indices)
    assert np.abs(rows @ turn - rows).max() > 0.5


def test_a_dictionary_has_no_more_in_common_with_its_rotated_copy_than_chance():
    a = directions(400, d=32)
    found = rotated_null(a, a, seed=0, n_draws=8)
    assert found.of_a.mean() == pytest.approx(expected_maximum(400, 32), abs=0.005)
    assert found.of_a.max() < 0.9
    assert len(rotated_null(a, a, seed=0, n_draws=2, n_rows=30).of_b) == 60


def test_a_crowded_dictionary_stays_crowded_when_it_is_rotated():
    # 40 directions ten times over: a rotated copy has as few different ones.
    crowded = Directions.of(weights(40, d=32).repeat(10, 1))
    found = rotated_null(directions(400, d=32, seed=1), crowded, seed=0, n_draws=8)
    assert found.of_a.mean() == pytest.approx(expected_maximum(40, 32), abs=0.01)
    assert found.of_a.mean() < expected_maximum(400, 32) - 0.05


def test_every_draw_has_directions_of_its_own_on_both_sides(monkeypatch):
    seen = []

    def noting(a, b, k):
        seen.extend([a.rows.tobytes(), b.rows.tobytes()])
        return top_matches(a, b, k)

    monkeypatch.setattr(module, "top_matches", noting)
    random_null(40, 40, 16, seed=1, n_draws=3)
    assert len(set(seen)) == len(seen) == 6
    a = directions(40)
    seen.clear()
    rotated_null(a, a, seed=1, n_draws=3)
    assert len(set(seen[1::2])) == 3


def test_sampled_rows_are_not_the_first_ones():
    rows = weights(60)
    rows[:30] = rows[0]
    found = rotated_null(Directions.of(rows), directions(60, seed=1), seed=0, n_rows=30)
    assert len(np.unique(found.of_a)) > 5


def test_no_entry_of_a_rotation_has_a_sign_of_its_own():
    turns = np.stack([random_rotation(4, seed) for seed in range(60)])
    share = (turns > 0).mean(axis=0)
    assert (share > 0.2).all()
    assert (share < 0.8).all()


def test_random_directions_have_length_one():
    rows = random_directions(50, 16, 0).rows
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_what_has_no_maximum_is_refused():
    with pytest.raises(ConfigError, match="1 direction or more in 2 dimensions or more, got 0"):
        expected_maximum(0, 8)
    with pytest.raises(ConfigError, match="got 5 in 1"):
        chance_above(0.5, 5, 1)
    with pytest.raises(ConfigError, match="at least 1 draw"):
        random_null(3, 3, 8, 0, n_draws=0)
