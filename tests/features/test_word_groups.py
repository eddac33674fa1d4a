from collections import Counter

import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features.word_groups import one_of_each, split_active, split_median


def test_without_keys_all_active_texts_stand_against_all_others():
    found = split_active(np.array([0.0, 2.0, 0.0, 0.1]))
    assert found.high.tolist() == [False, True, False, True]
    assert found.low.tolist() == [True, False, True, False]
    assert found.n_unmatched == 0


def test_the_median_split_of_a_sparse_latent_is_active_or_not():
    activation = np.array([0.0, 0.0, 3.0, 0.0, 1.0])
    by_median, by_activity = split_median(activation), split_active(activation)
    np.testing.assert_array_equal(by_median.high, by_activity.high)
    np.testing.assert_array_equal(by_median.low, by_activity.low)


def test_the_median_split_of_a_dense_latent_is_at_its_median():
    found = split_median(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.high.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("density", [0.05, 0.5, 0.9])
def test_matched_sides_have_equally_many_texts_of_every_key(density):
    luck = np.random.default_rng(0)
    activation = luck.random(300) * (luck.random(300) < density)
    keys = [(luck.choice(["bet", "stop"]), int(luck.integers(4))) for _ in range(300)]
    found = split_active(activation, keys)
    sides = [
        Counter(key for key, is_so in zip(keys, side, strict=True) if is_so)
        for side in (found.high, found.low)
    ]
    assert sides[0] == sides[1]
    active = Counter(key for key, a in zip(keys, activation, strict=True) if a > 0)
    inactive = Counter(key for key, a in zip(keys, activation, strict=True) if a == 0)
    assert sides[0] == active & inactive
    assert found.n_unmatched == (activation > 0).sum() - found.high.sum()
    assert not (activation[found.high] == 0).any()
    assert not activation[found.low].any()


def test_every_text_of_a_kind_is_as_likely_to_be_drawn():
    activation = np.array([1.0, 1.0] + [0.0] * 8)
    drawn = np.sum([split_active(activation, [0] * 10, seed).low for seed in range(2000)], axis=0)
    expected = 2000 * 2 / 8
    assert np.abs(drawn[2:] - expected).max() < 4 * (expected * 0.75) ** 0.5


def test_a_draw_is_made_again_from_its_seed_and_another_from_another():
    activation = (np.arange(100) < 10).astype(float)
    first, again, other = (split_active(activation, [0] * 100, seed).low for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_texts_of_a_key_with_one_side_are_left_out_and_counted():
    found = split_active(np.array([1.0, 1.0, 0.0, 0.0]), ["a", "b", "a", "c"])
    assert found.high.tolist() == [True, False, False, False]
    assert found.low.tolist() == [False, False, True, False]
    assert found.n_unmatched == 1


def test_one_text_of_each_group_is_drawn():
    groups = np.random.default_rng(0).integers(20, size=200).tolist()
    chosen = one_of_each(groups, seed=1)
    assert Counter(np.array(groups)[chosen].tolist()) == Counter(set(groups))
    assert (chosen != one_of_each(groups, seed=2)).any()


def test_what_cannot_be_split_says_why():
    with pytest.raises(ConfigError, match="match needs one entry for each of the 3 texts, got 2"):
        split_active(np.zeros(3), ["a", "b"])
    with pytest.raises(ConfigError, match="none came"):
        split_median(np.zeros(0))
    with pytest.raises(NumericsError, match="got NaN"):
        split_active(np.array([0.0, np.nan]))
