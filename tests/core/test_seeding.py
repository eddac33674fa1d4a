import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.core.seeding import derive_seed, stream, torch_stream

NAMES = st.lists(st.text(max_size=4) | st.integers(-5, 5), max_size=3)


@given(st.integers(0, 2**40), NAMES)
def test_a_seed_is_the_same_every_time_and_fits_63_bits(seed, names):
    assert derive_seed(seed, *names) == derive_seed(seed, *names)
    assert 0 <= derive_seed(seed, *names) < 2**63


@given(st.tuples(st.integers(0, 3), NAMES), st.tuples(st.integers(0, 3), NAMES))
def test_other_names_or_seeds_are_other_streams(one, two):
    same = one == two
    assert (derive_seed(one[0], *one[1]) == derive_seed(two[0], *two[1])) is same


def test_a_number_and_its_text_are_different_names():
    assert derive_seed(0, 1) != derive_seed(0, "1")
    assert derive_seed(0, "a", "b") != derive_seed(0, "ab")


def test_this_seed_is_this_number_for_ever():
    # Runs on disk depend on it: if it changes, a resumed run would silently differ.
    assert derive_seed(0, "games", 17) == 8_999_086_031_274_409_995


def test_a_stream_does_not_depend_on_who_drew_before():
    expected = stream(3, "games", 17).random(4)
    other = stream(3, "games", 16)
    other.random(100)
    np.testing.assert_array_equal(stream(3, "games", 17).random(4), expected)


def test_streams_of_different_names_are_uncorrelated():
    draws = np.stack([stream(0, "row", row).standard_normal(4000) for row in range(8)])
    off_diagonal = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(4000)


def test_torch_streams_follow_the_same_rule():
    one = torch.randn(4, generator=torch_stream(1, "a"))
    assert torch.equal(one, torch.randn(4, generator=torch_stream(1, "a")))
    assert not torch.equal(one, torch.randn(4, generator=torch_stream(1, "b")))
