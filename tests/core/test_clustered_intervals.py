"""Intervals over rows that belong together hold the truth as often as they say."""

import math

import numpy as np
import pytest

from fluoroscope.core.intervals import (
    clustered_mean_interval,
    clustered_share_interval,
    jackknife_intervals,
    mean_interval,
    share_interval,
)


def test_a_clustered_mean_is_the_intercept_of_statsmodels():
    import statsmodels.api as sm

    luck = np.random.default_rng(0)
    cluster = np.repeat(np.arange(15), luck.integers(1, 9, 15))
    values = luck.normal(0, 1, 15)[cluster] + luck.normal(0, 1, len(cluster))
    fit = sm.OLS(values, np.ones_like(values)).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True
    )
    found = clustered_mean_interval(values, cluster)
    assert found.value == pytest.approx(fit.params[0])
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))


def test_clusters_of_one_row_are_plain_rows():
    luck = np.random.default_rng(1)
    values = luck.normal(0, 1, 30)
    assert clustered_mean_interval(values, np.arange(30)) == pytest.approx(mean_interval(values))


def test_rows_that_are_there_many_times_tell_no_more():
    luck = np.random.default_rng(2)
    values, is_so = luck.normal(0, 1, 20), luck.random(20) < 0.3
    once, many = np.arange(20), np.repeat(np.arange(20), 50)
    assert clustered_mean_interval(np.repeat(values, 50), many) == pytest.approx(
        clustered_mean_interval(values, once)
    )
    # But for the 19 in 20 of a variance from 20 rows.
    one = share_interval(is_so)
    copies = clustered_share_interval(np.repeat(is_so, 50), many)
    assert copies.high - copies.low == pytest.approx(one.high - one.low, rel=0.1)


def test_about_one_clustered_interval_in_twenty_misses_the_truth():
    luck = np.random.default_rng(3)
    n, hits = 600, {"share": 0, "mean": 0, "plain": 0}
    cluster = np.repeat(np.arange(25), luck.integers(5, 40, 25))
    for _ in range(n):
        is_so = luck.random(len(cluster)) < luck.beta(1, 4, 25)[cluster]
        for name, found in (
            ("share", clustered_share_interval(is_so, cluster)),
            ("mean", clustered_mean_interval(is_so.astype(float), cluster)),
            ("plain", share_interval(is_so)),
        ):
            hits[name] += found.low <= 0.2 <= found.high
    assert 0.92 <= hits["share"] / n <= 0.99
    assert 0.88 <= hits["mean"] / n <= 0.99
    # What it is for: rows for themselves would claim far too much.
    assert hits["plain"] / n < 0.8


def test_a_clustered_share_of_none_or_all_still_has_a_width():
    cluster = np.repeat(np.arange(20), 30)
    none = clustered_share_interval(np.zeros(600, bool), cluster)
    every = clustered_share_interval(np.ones(600, bool), cluster)
    assert (none.value, none.low) == (0, 0)
    assert (every.value, every.high) == (1, 1)
    assert none.high == pytest.approx(1 - every.low)
    # Each cluster counts as one row.
    assert none.high > share_interval(np.zeros(20, bool)).high


def test_clusters_that_are_all_alike_do_not_narrow_a_share_beyond_its_rows():
    is_so = np.tile([True, False], 50)
    found = clustered_share_interval(is_so, np.repeat(np.arange(50), 2))
    plain = share_interval(is_so)
    assert found.low <= plain.low
    assert found.high >= plain.high


def test_what_cannot_be_told_has_no_ends():
    few = np.repeat(np.arange(9), 10)
    assert math.isnan(clustered_share_interval(np.tile([True, False], 45), few).low)
    assert math.isnan(clustered_mean_interval(np.arange(90.0), few).low)
    # No cluster differs from another: nothing tells how much others would.
    same = clustered_mean_interval(np.tile([0.1, 0.3], 20), np.repeat(np.arange(20), 2))
    assert same.value == pytest.approx(0.2)
    assert math.isnan(same.low)
    assert math.isnan(clustered_mean_interval(np.empty(0), np.empty(0, int)).value)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(4).normal(0, 1, 25)
    totals = np.stack([np.ones(25), values], 1)
    (found,) = jackknife_intervals(lambda sums: sums[:, 1:] / sums[:, :1], totals)
    assert found == pytest.approx(mean_interval(values))


def test_the_jackknife_covers_a_ratio():
    luck, hits = np.random.default_rng(5), 0
    for _ in range(400):
        below = luck.uniform(1, 3, 30)
        totals = np.stack([0.5 * below + luck.normal(0, 1, 30), below], 1)
        (found,) = jackknife_intervals(lambda sums: sums[:, :1] / sums[:, 1:], totals)
        hits += found.low <= 0.5 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_the_jackknife_says_nothing_of_few_units_or_of_constants():
    def statistics(sums):
        return np.stack([sums[:, 0], sums[:, 1] / sums[:, 0]], 1)

    few = jackknife_intervals(statistics, np.ones((9, 2)))
    assert [one.value for one in few] == [9, 1]
    many = jackknife_intervals(statistics, np.ones((12, 2)))
    assert all(math.isnan(one.low) for one in [*few, *many])
