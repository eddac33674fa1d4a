import numpy as np
import polars as pl
import pytest
from contrast_data import made, sparse

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.contrasts import Rows, contrasts
from fluoroscope.features.permutation import (
    family_wise,
    permutation_null,
    shuffled_group,
    split_by_cluster,
)


def test_splits_are_of_whole_clusters_and_alike_in_every_stratum():
    _, rows = made(n=600, n_clusters=200)
    for share in (0.5, 0.3):
        found = split_by_cluster(rows.cluster, share, seed=1, strata=rows.strata)
        _, first = np.unique(rows.cluster, return_index=True)
        is_in, strata = found[first], rows.strata[first]
        assert (found == is_in[np.searchsorted(rows.cluster[first], rows.cluster)]).all()
        assert abs(is_in.sum() - share * 200) < 1
        for stratum in range(3):
            n = (strata == stratum).sum()
            assert abs(is_in[strata == stratum].sum() - share * n) <= 1
    again = split_by_cluster(rows.cluster, seed=1)
    np.testing.assert_array_equal(again, split_by_cluster(rows.cluster, seed=1))
    assert (again != split_by_cluster(rows.cluster, seed=2)).any()
    with pytest.raises(ConfigError, match="share must be between 0 and 1, got 1"):
        split_by_cluster(rows.cluster, 1)


def test_one_cluster_a_stratum_still_gives_halves():
    found = split_by_cluster(np.arange(101), strata=np.arange(101))
    assert abs(found.sum() - 50.5) < 1


def test_shuffled_labels_stay_whole_in_a_cluster_and_as_many_in_a_stratum():
    _, rows = made()
    moved = 0
    for i in range(5):
        group = shuffled_group(rows, 0, i)
        _, first = np.unique(rows.cluster, return_index=True)
        of_cluster = dict(zip(rows.cluster[first], group[first], strict=True))
        assert all(of_cluster[c] == g for c, g in zip(rows.cluster, group, strict=True))
        for stratum in range(3):
            is_of = rows.strata[first] == stratum
            assert group[first][is_of].sum() == rows.group[first][is_of].sum()
        moved += (group != rows.group).any()
    assert moved == 5
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(shuffled_group(rows.take(order), 0, 4), group[order])


def test_labels_within_clusters_are_handed_on_in_their_order():
    sequences = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 0]], bool)
    cluster = np.repeat(np.arange(4), 3)
    rows = Rows(sequences.ravel(), cluster, np.zeros((12, 0)))
    shuffled = shuffled_group(rows, 0, 0).reshape(4, 3)
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, sequences))
    # Of other lengths: the last decision of a game, and no other, stays the one in the group.
    length = np.array([1, 2, 5, 9, 30])
    cluster = np.repeat(np.arange(5), length)
    is_last = np.append(cluster[1:] != cluster[:-1], True)
    for i in range(6):
        group = shuffled_group(Rows(is_last, cluster, np.zeros((47, 0))), 0, i)
        assert group[is_last].all()


@pytest.mark.parametrize(
    ("statistic", "test"), [("cohen_d", "welch"), ("adjusted_t", "adjusted"), ("score_z", "score")]
)
def test_the_null_is_what_contrasts_find_with_shuffled_labels(statistic, test):
    latents, rows = made()
    more, _ = made(seed=1)
    layers = {"0": sparse(latents), "1": sparse(more)}
    null = permutation_null(layers, rows, n=3, seed=5, statistic=statistic)
    for i in range(3):
        found = contrasts(layers, rows.with_group(shuffled_group(rows, 5, i))).filter("is_tested")
        assert null["largest"][i] == pytest.approx(found[statistic].abs().max(), rel=1e-9)
        assert null["n_found"][i] == (found[f"q_{test}"] < 0.05).sum()
    assert null["permutation"].to_list() == [0, 1, 2]


def test_family_wise_p_are_shares_of_permutations_with_something_as_large():
    null = pl.DataFrame({"statistic": ["cohen_d"] * 4, "largest": [0.3, 0.5, 0.1, 0.7]})
    found = pl.DataFrame(
        {"cohen_d": [-0.5, 0.9, 0.0, np.nan, 0.9], "is_tested": [True, True, True, True, False]}
    )
    expected = [3 / 5, 1 / 5, 1, np.nan, np.nan]
    np.testing.assert_allclose(family_wise(found, null), expected)


def test_a_planted_difference_is_the_only_one_beyond_the_largest_of_chance():
    latents, rows = made()
    latents[rows.group, 7] += 2
    layers = {"0": sparse(latents)}
    null = permutation_null(layers, rows, n=60, statistic="score_z")
    p = family_wise(contrasts(layers, rows), null)
    assert np.flatnonzero(p < 0.05).tolist() == [7]
    assert p[7] == pytest.approx(1 / 61)


def test_a_null_that_cannot_be_made_is_named():
    latents, rows = made()
    with pytest.raises(ConfigError, match="got 1 and 0"):
        permutation_null({"0": sparse(latents)}, rows, n=0)
