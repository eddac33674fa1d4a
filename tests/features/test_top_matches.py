import numba
import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features import top_matches as module
from fluoroscope.features.matching import NONE, neighbours
from fluoroscope.features.top_matches import (
    Directions,
    nearest_within,
    top_matches,
    top_matches_naive,
)
from tests.features.matching_data import directions, order_of, weights


def assert_same(found, expected):
    """Bit by bit."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.cosines, other.cosines)
        assert one.n_targets == other.n_targets


@pytest.mark.parametrize(("n", "m"), [(300, 500), (500, 300), (1, 70), (70, 1), (3, 3), (65, 130)])
@pytest.mark.parametrize("k", [1, 4])
def test_what_is_found_in_blocks_is_what_all_cosines_say(n, m, k):
    a, b = directions(n), directions(m, seed=1)
    found, naive = top_matches(a, b, k, block=64), top_matches_naive(a, b, k)
    for one, other in zip(found, naive, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        # A float64 sum in another order can be rounded to the next float32.
        np.testing.assert_allclose(one.cosines, other.cosines, atol=1.2e-7)


def test_it_agrees_with_the_graph_of_nearest_directions():
    a, b = weights(90), weights(120, seed=1)
    found = top_matches(Directions.of(a), Directions.of(b), 3)
    for one, other in zip(found, (neighbours(a, b, 3), neighbours(b, a, 3)), strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.cosines, other.cosines, atol=1e-6)


def test_the_other_way_round_is_the_transpose():
    a, b = directions(200), directions(310, seed=1)
    assert_same(top_matches(b, a, 4), top_matches(a, b, 4)[::-1])


@pytest.mark.parametrize("block", [1, 7, 64, 199, 1000])
def test_blocks_change_no_bit(block):
    a, b = directions(200, d=48), directions(310, d=48, seed=1)
    assert_same(top_matches(a, b, 4, block), top_matches(a, b, 4))
    own = nearest_within(a, 3, block), nearest_within(a, 3)
    assert_same(own[:1], own[1:])


def test_threads_change_no_bit():
    # Many columns, so that several threads have columns of their own.
    a, b = directions(60, d=48), directions(2500, d=48, seed=1)
    alone = top_matches(a, b, 4)
    threads, loops = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(2)
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    try:
        together = top_matches(a, b, 4)
    finally:
        torch.set_num_threads(threads)
        numba.set_num_threads(loops)
    assert_same(together, alone)


def test_lengths_of_directions_change_nothing():
    a, b = weights(80), weights(90, seed=1)
    plain = top_matches(Directions.of(a), Directions.of(b))
    # Powers of two, which round nothing.
    scaled = top_matches(Directions.of(a * 4), Directions.of(b * 2.0 ** -torch.arange(90)[:, None]))
    assert_same(plain, scaled)


def test_the_order_of_latents_changes_only_the_order():
    a, b, order = weights(80), weights(90, seed=1), order_of(90)
    plain = top_matches(Directions.of(a), Directions.of(b))
    mixed = top_matches(Directions.of(a), Directions.of(b[order]))
    np.testing.assert_array_equal(order.numpy()[mixed.of_a.indices], plain.of_a.indices)
    np.testing.assert_array_equal(mixed.of_b.indices, plain.of_b.indices[order])


@pytest.mark.parametrize("copies", [2, 6, 40])
def test_of_equals_the_lower_index_stands_first(copies):
    # 40 copies are more than are kept to choose from, so that all cosines are looked at.
    once = weights(20, d=24)
    a, b = (
        directions(50, d=24, seed=1),
        Directions.of(once.repeat(copies, 1)[order_of(20 * copies)]),
    )
    found = top_matches(a, b, 4, block=16)
    assert_same(found, top_matches_naive(a, b, 4))
    ties = found.of_a.cosines[:, :-1] == found.of_a.cosines[:, 1:]
    assert ties[:, 0].all()
    assert (found.of_a.indices[:, :-1][ties] < found.of_a.indices[:, 1:][ties]).all()


@pytest.mark.parametrize("n", [6, 200])
def test_what_differs_in_the_last_digit_is_put_in_order_by_exact_cosines(n):
    # 6 are all kept to choose from; of 200 the product leaves out some that are among the best.
    rows = weights(1, d=64).repeat(n, 1)
    rows *= 1 + 2.0**-23 * torch.randint(-2, 3, rows.shape, generator=torch.manual_seed(0))
    a, b = directions(60, d=64, seed=1), Directions.of(torch.cat([weights(9, 64, 2), rows]))
    found = top_matches(a, b, 4, block=16)
    for one, other in zip(found, top_matches_naive(a, b, 4), strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.cosines, other.cosines)


def test_a_dictionary_of_one_direction_is_all_ties():
    a = Directions.of(torch.ones(30, 8))
    found = top_matches(a, a, 4)
    assert (found.of_a.indices == np.arange(4)).all()
    np.testing.assert_allclose(found.of_a.cosines, 1, atol=1e-6)
    np.testing.assert_array_equal(nearest_within(a).indices[:, 0], [1] + 29 * [0])


def test_a_dictionary_is_nearest_to_itself_and_within_it_that_is_left_out():
    a = directions(150)
    found = top_matches(a, a, 3).of_a
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(150))
    np.testing.assert_allclose(found.cosines[:, 0], 1, atol=1e-6)
    own = nearest_within(a, 2, block=32)
    np.testing.assert_array_equal(own.indices, found.indices[:, 1:])
    np.testing.assert_array_equal(own.cosines, found.cosines[:, 1:])


def test_duplicates_within_a_dictionary_are_each_others_nearest():
    rows = weights(60)
    rows[45] = 2 * rows[10]
    own = nearest_within(Directions.of(rows))
    assert own.indices[10, 0] == 45
    assert own.indices[45, 0] == 10
    assert (np.flatnonzero(own.cosines[:, 0] > 0.999) == [10, 45]).all()


def test_dead_latents_match_nothing_and_nothing_matches_them():
    rows, others = weights(40), weights(50, seed=1)
    rows[3] = 0
    dead = np.zeros(50, bool)
    dead[[0, 7]] = True
    a, b = Directions.of(rows), Directions.of(others, dead)
    assert (len(a), a.n_latents) == (39, 40)
    assert (len(b), b.n_latents) == (48, 50)
    found = top_matches(a, b)
    assert (found.of_a.indices[3] == NONE).all()
    assert np.isnan(found.of_a.cosines[3]).all()
    assert (found.of_b.indices[[0, 7]] == NONE).all()
    assert not np.isin(found.of_a.indices, [0, 7]).any()
    assert not np.isin(found.of_b.indices, [3]).any()
    assert (np.isnan(found.of_a.cosines) == (found.of_a.indices == NONE)).all()
    # The others are as they are without the dead.
    alone = top_matches(Directions.of(rows[np.arange(40) != 3]), Directions.of(others[~dead]))
    kept = np.flatnonzero(~dead)
    np.testing.assert_array_equal(found.of_a.indices[np.arange(40) != 3], kept[alone.of_a.indices])


def test_fewer_latents_than_places_leave_places_empty():
    found = top_matches(directions(5), directions(2, seed=1), 4)
    assert (found.of_a.indices[:, 2:] == NONE).all()
    assert (np.sort(found.of_a.indices[:, :2], axis=1) == [0, 1]).all()
    assert np.isnan(found.of_a.cosines[:, 2:]).all()
    assert (nearest_within(directions(1)).indices == NONE).all()


def test_where_the_product_could_hide_a_better_one_all_cosines_are_computed(monkeypatch):
    a, b = directions(60, d=24), directions(90, d=24, seed=1)
    plain = top_matches(a, b)
    # As if nothing of the product could be relied upon.
    monkeypatch.setattr(module, "_product_error", lambda width: 10.0)
    assert_same(top_matches(a, b), plain)
    monkeypatch.setattr(module, "_product_error", lambda width: 0.0)
    with pytest.raises(NumericsError, match="set_float32_matmul_precision"):
        top_matches(a, b)


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ConfigError, match="d_model 16, the other 8"):
        top_matches(directions(4), directions(4, d=8))
    with pytest.raises(ConfigError, match="All 3 latents are dead"):
        top_matches(directions(4), Directions.of(torch.zeros(3, 16)))
    with pytest.raises(ConfigError, match="1 or more, got 0"):
        top_matches(directions(4), directions(4), 0)
    for dead in (np.zeros(3, bool), np.array([0, 2]), np.zeros(4), np.zeros((4, 1), bool)):
        with pytest.raises(ConfigError, match="marked by 4 values of True or False"):
            Directions.of(weights(4), dead)
    damaged = weights(4)
    damaged[2, 3] = float("nan")
    with pytest.raises(NumericsError, match="latent 2"):
        Directions.of(damaged)
