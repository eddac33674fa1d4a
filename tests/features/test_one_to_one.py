import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.assignment import Assignment, one_to_one
from fluoroscope.features.top_matches import Directions, top_matches
from tests.features.matching_data import directions, order_of, weights

SIZES = [(60, 60), (40, 90), (90, 40), (1, 7), (7, 1)]


def best_total(a, b):
    cosines = a.rows.astype(np.float64) @ b.rows.T.astype(np.float64)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return cosines[rows, columns].sum()


def assert_one_to_one(pairs, a, b):
    n = min(len(a), len(b))
    assert len(pairs.latents_a) == len(np.unique(pairs.latents_a)) == n
    assert len(pairs.latents_b) == len(np.unique(pairs.latents_b)) == n
    assert np.isin(pairs.latents_a, a.latents).all()
    assert np.isin(pairs.latents_b, b.latents).all()
    assert (np.diff(pairs.latents_a) > 0).all()


def rows_of(a, latents):
    return a.rows[np.searchsorted(a.latents, latents)].astype(np.float64)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_an_exact_assignment_is_the_best_there_is(n, m):
    a, b = directions(n), directions(m, seed=1)
    pairs = one_to_one(a, b)
    assert_one_to_one(pairs, a, b)
    assert pairs.is_exact
    assert pairs.n_candidates is None
    assert pairs.total == pytest.approx(best_total(a, b), rel=1e-6)
    cosines = (rows_of(a, pairs.latents_a) * rows_of(b, pairs.latents_b)).sum(1)
    np.testing.assert_allclose(pairs.cosines, cosines, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("k", [1, 3, 8])
def test_among_candidates_the_best_is_within_the_bound(n, m, k):
    a, b = directions(n), directions(m, seed=1)
    pairs = one_to_one(a, b, exact_up_to=0, n_candidates=k)
    assert_one_to_one(pairs, a, b)
    assert pairs.total <= best_total(a, b) + 1e-4
    assert pairs.upper_bound >= best_total(a, b) - 1e-4
    assert pairs.gap == pytest.approx(pairs.upper_bound - pairs.total)
    cosines = (rows_of(a, pairs.latents_a) * rows_of(b, pairs.latents_b)).sum(1)
    np.testing.assert_allclose(pairs.cosines, cosines, atol=1e-6)


def test_what_has_clear_partners_is_proved_to_be_the_best():
    rows, order = weights(300, d=32), order_of(300)
    a, b = Directions.of(rows), Directions.of((rows + 0.1 * weights(300, d=32, seed=1))[order])
    pairs = one_to_one(a, b, exact_up_to=0, n_candidates=4)
    assert pairs.n_candidates == 4
    assert pairs.is_exact
    assert pairs.gap == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(order[pairs.latents_b], pairs.latents_a)


def test_more_candidates_bring_bound_and_sum_together():
    a, b = directions(200), directions(200, seed=1)
    gaps = [one_to_one(a, b, 0, k).gap for k in (2, 8, 40)]
    assert gaps[0] > gaps[1] > gaps[2] >= 0


def test_top_matches_that_are_known_are_not_computed_again():
    a, b = directions(80), directions(100, seed=1)
    found = top_matches(a, b, 10)
    given, own = one_to_one(a, b, 0, 6, found), one_to_one(a, b, 0, 6)
    np.testing.assert_array_equal(given.latents_b, own.latents_b)
    assert given.upper_bound == own.upper_bound
    with pytest.raises(ConfigError, match="of 12 or more"):
        one_to_one(a, b, 0, 12, found)


def test_what_is_left_over_is_paired_part_by_part():
    # One candidate each, and 30 equal directions: nearly all are left over.
    rows = weights(40)
    rows[5:35] = rows[5]
    a, b = Directions.of(rows), directions(40, seed=1)
    for size in (0, 3, 8, 30):
        pairs = one_to_one(a, b, exact_up_to=size, n_candidates=1)
        assert_one_to_one(pairs, a, b)
        assert pairs.total <= best_total(a, b) + 1e-4 <= pairs.upper_bound + 2e-4


def test_what_is_left_over_is_paired_in_the_best_way():
    # All are nearest to the first of b, and each is also a little like one that only it is like.
    own, order = torch.eye(31)[1:], order_of(30)
    a = Directions.of(0.9 * torch.eye(31)[:1] + 0.4 * own)
    b = Directions.of(torch.cat([torch.eye(31)[:1], own[order]]))
    pairs = one_to_one(a, b, exact_up_to=30, n_candidates=1)
    rest = pairs.latents_b > 0
    assert rest.sum() == 29
    np.testing.assert_array_equal(order[pairs.latents_b[rest] - 1], pairs.latents_a[rest])
    assert pairs.total == pytest.approx(best_total(a, b), rel=1e-6)
    # It is the best, and the bound does not prove it.
    assert not pairs.is_exact


def test_an_assignment_is_exact_where_nothing_but_rounding_is_left_to_the_bound():
    half = np.full(2, 0.5, np.float32)
    places = np.arange(2, dtype=np.int32)
    assert Assignment(places, places, half, 1 + 1e-12).is_exact
    assert not Assignment(places, places, half, 1 + 1e-6).is_exact


def test_the_other_way_round_has_the_same_sum():
    a, b = directions(70), directions(90, seed=1)
    one, other = one_to_one(a, b), one_to_one(b, a)
    assert one.total == pytest.approx(other.total)
    np.testing.assert_array_equal(one.latents_b[np.argsort(one.latents_b)], other.latents_a)


@pytest.mark.parametrize("exact_up_to", [0, 1000])
def test_dead_latents_are_in_no_pair(exact_up_to):
    rows = weights(50)
    rows[[4, 9]] = 0
    a, b = Directions.of(rows), directions(45, seed=1)
    assert_one_to_one(one_to_one(a, b, exact_up_to, 5), a, b)
    assert_one_to_one(one_to_one(b, a, exact_up_to, 5), b, a)


def test_what_cannot_be_assigned_is_refused():
    with pytest.raises(ConfigError, match="one d_model, got 16 and 8"):
        one_to_one(directions(4), directions(4, d=8))
    with pytest.raises(ConfigError, match="n_candidates must be 1 or more"):
        one_to_one(directions(4), directions(4), n_candidates=0)
