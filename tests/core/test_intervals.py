"""Intervals hold the truth as often as they say, and say nothing where they cannot."""

import math

import numpy as np
import pytest

from fluoroscope.core.intervals import (
    mean_interval,
    paired_interval,
    ratio_interval,
    resampled_interval,
    share_interval,
)


def test_about_one_interval_in_twenty_misses_the_truth():
    luck = np.random.default_rng(0)
    hits = {"share": 0, "mean": 0, "ratio": 0}
    for trial in range(200):
        found = share_interval(luck.random(200) < 0.3)
        hits["share"] += found.low <= 0.3 <= found.high
        found = mean_interval(luck.normal(1, 2, 100))
        hits["mean"] += found.low <= 1 <= found.high
        below = luck.uniform(1, 3, 100)
        found = ratio_interval(0.5 * below + luck.normal(0, 1, 100), below, trial, 200)
        hits["ratio"] += found.low <= 0.5 <= found.high
    assert all(0.9 <= n / 200 <= 0.99 for n in hits.values()), hits


def test_intervals_of_few_units_are_wide_enough():
    luck = np.random.default_rng(1)
    n, hits = 2000, {"mean": 0, "paired": 0}
    for _ in range(n):
        found = mean_interval(luck.normal(1, 2, 10))
        hits["mean"] += found.low <= 1 <= found.high
        # Of 20 pairs 3 in 20 are so only with, 1 in 20 only without.
        gained, lost, _ = luck.multinomial(20, [0.15, 0.05, 0.8])
        found = paired_interval(int(gained), int(lost), 20)
        assert found.value == pytest.approx((gained - lost) / 20)
        hits["paired"] += found.low <= 0.1 <= found.high
    assert all(0.94 <= hit / n <= 0.99 for hit in hits.values()), hits
    nothing = paired_interval(0, 0, 20)
    assert nothing.low < -0.1 < nothing.value == 0 < 0.1 < nothing.high


def test_the_estimate_is_the_plain_statistic():
    values = np.arange(30.0)
    assert mean_interval(values).value == pytest.approx(14.5)
    assert share_interval(values > 19).value == pytest.approx(1 / 3)
    assert ratio_interval(values, 2 * values + 1, 0).value == pytest.approx(435 / 900)
    median = resampled_interval(lambda chosen: float(np.median(values[chosen])), 30, 0)
    assert median.value == 14.5
    assert median.low < 14.5 < median.high
    assert median == resampled_interval(lambda chosen: float(np.median(values[chosen])), 30, 0)


def test_few_units_have_an_estimate_and_no_interval():
    for found in (mean_interval(np.ones(9)), ratio_interval(np.ones(9), np.ones(9), 0)):
        assert found.value == 1
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_a_ratio_of_nothing_cannot_be_told():
    assert math.isnan(ratio_interval(np.ones(20), np.zeros(20), 0).value)
    assert math.isnan(ratio_interval(np.empty(0), np.empty(0), 0).value)


def test_a_share_of_all_or_none_still_has_a_width():
    everything = share_interval(np.ones(50, dtype=bool))
    assert everything.value == everything.high == 1
    assert 0.9 < everything.low < 1
