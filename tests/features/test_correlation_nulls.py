import numpy as np
import polars as pl
import pytest
from correlation_data import DEAD, EVEN, made, moments_of, naive_pearson
from scipy.stats import binom, pearsonr

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_nulls import (
    ALL,
    family_wise,
    intervals,
    null_maxima,
    p_values,
    pick_stability,
)
from fluoroscope.features.correlation_outcomes import Outcomes
from fluoroscope.features.multiple_tests import benjamini_hochberg

N_RUNS = 200


def rare(n, d_sae, random, group=None):
    """Latents active in a few percent to half of the rows, together in a group where given."""
    share = random.uniform(0.05, 0.5, d_sae)
    where = random.random((n if group is None else group.max() + 1, d_sae)) < share
    where = where if group is None else where[group]
    return where * random.gamma(1.5, size=(n, d_sae))


def found_anything(p_of, n_runs, made_run):
    """In how many runs on shuffled outcomes any latent has q < 0.05, and the share of p < 0.05."""
    n_found, small = 0, []
    for seed in range(n_runs):
        p = p_of(p_values(made_run(seed)))
        n_found += bool((benjamini_hochberg(p) < 0.05).any())
        small.append(np.nanmean(p < 0.05))
    return n_found, np.mean(small)


@pytest.mark.parametrize("rate", [0.5, 0.08])
def test_shuffled_outcomes_make_discoveries_at_the_nominal_rate(rate):
    random = np.random.default_rng(5)
    pooled = rare(200, 100, random)

    def run(seed):
        y = np.random.default_rng(seed).permutation((np.arange(200) < rate * 200).astype(float))
        return moments_of(pooled, Outcomes(y, n_shuffles=0, n_resamples=0), batch=200)

    n_found, small = found_anything(lambda p: p.moments, N_RUNS, run)
    assert n_found <= binom.ppf(0.999, N_RUNS, 0.05)
    assert 0.03 < small < 0.06
    if rate == 0.08:
        # Rare latents and a lopsided outcome: what Student's t would have found.
        assert found_anything(lambda p: p.t, 60, run)[0] > 20


def test_groups_make_discoveries_at_the_nominal_rate_where_rows_would_not():
    random = np.random.default_rng(6)
    group = np.arange(240) // 6
    pooled = rare(240, 60, random, group)

    def run(seed):
        by_group = np.random.default_rng(seed).permutation(np.arange(40) % 2)
        y = by_group[group].astype(float)
        outcomes = Outcomes(y, group=group, n_shuffles=100, n_resamples=0, seed=seed)
        return moments_of(pooled, outcomes, batch=240)

    n_found, small = found_anything(lambda p: p.moments, 100, run)
    assert n_found <= binom.ppf(0.999, 100, 0.05)
    assert 0.03 < small < 0.065
    assert found_anything(lambda p: p.t, 20, run)[0] == 20


def test_p_of_t_is_that_of_scipy_and_p_of_shuffles_counts_them():
    pooled, y = made()
    outcomes = Outcomes(y, n_shuffles=50, n_resamples=0)
    p = p_values(moments_of(pooled, outcomes))
    columns = outcomes.columns(np.arange(120))
    for latent in (0, 1, 7):
        exact = pearsonr(pooled[:, latent], y)
        assert p.t[latent] == pytest.approx(exact.pvalue, rel=1e-8)
        null = [abs(naive_pearson(pooled[:, latent], columns[:, i])) for i in range(1, 51)]
        n_as_large = sum(r >= abs(exact.statistic) * (1 - 1e-9) for r in null)
        assert p.shuffled[latent] == (n_as_large + 1) / 51
    for part in p:
        assert np.isnan(part[[DEAD, EVEN]]).all()


def test_p_by_moments_is_the_share_of_shuffles_where_a_rare_latent_meets_a_hard_task():
    random = np.random.default_rng(1)
    n = 300
    pooled = np.zeros((n, 1))
    pooled[:30, 0] = random.gamma(2.0, size=30)
    y = np.zeros(n)
    y[[0, 3, 5, 8, 12, 40, 60, 70, 80, 90, 100, 110]] = 1
    found = moments_of(pooled, Outcomes(y, n_shuffles=20000, n_resamples=0), batch=n)
    p = p_values(found)
    one_sided = (found.shuffled_pearson() >= found.pearson()[0]).mean()
    assert p.moments[0] == pytest.approx(2 * one_sided, rel=0.25)
    assert p.t[0] < one_sided / 3


def test_the_largest_of_each_shuffle_is_that_of_dense_rows():
    pooled, y = made()
    other = made(seed=1)[0]
    outcomes = Outcomes(y, n_shuffles=12, n_resamples=0)
    found = {"0.resid_post": moments_of(pooled, outcomes), "1.x": moments_of(other, outcomes)}
    for sign, measure in (("either", np.abs), ("positive", lambda r: r), ("negative", np.negative)):
        null = null_maxima(found, min_active=20, sign=sign)
        columns = outcomes.columns(np.arange(120))[:, 1:]
        by_point = {}
        for point, x in (("0.resid_post", pooled), ("1.x", other)):
            tested = [j for j in range(16) if (x[:, j] > 0).sum() >= 20 and j != EVEN]
            r = [[naive_pearson(x[:, j], column) for j in tested] for column in columns.T]
            by_point[point] = measure(np.array(r)).max(axis=1)
            own = null.filter(pl.col("hook_point") == point)["largest"]
            np.testing.assert_allclose(own, by_point[point], atol=1e-8)
        own = null.filter(pl.col("hook_point") == ALL)["largest"]
        np.testing.assert_allclose(own, np.maximum(*by_point.values()), atol=1e-8)


def test_family_wise_p_counts_the_shuffles_that_reach_as_far():
    null = pl.DataFrame({"hook_point": [ALL] * 4, "largest": [0.1, 0.2, 0.3, 0.4]})
    p = family_wise(np.array([0.05, -0.2, 0.25, 0.9, np.nan]), null)
    np.testing.assert_allclose(p, [1.0, 0.8, 0.6, 0.2, np.nan])
    assert np.isnan(family_wise(np.array([0.1]), null, "elsewhere")).all()


def test_intervals_of_independent_rows_are_fishers_and_those_of_the_bootstrap_are_like_them():
    random = np.random.default_rng(2)
    y = (random.random(600) < 0.5).astype(float)
    pooled = np.abs(random.normal(size=(600, 4)) + y[:, None] * [0, 0.3, 0.6, 1])
    alone = intervals(moments_of(pooled, Outcomes(y, n_shuffles=0, n_resamples=0)))
    drawn = intervals(moments_of(pooled, Outcomes(y, n_shuffles=0, n_resamples=400)))
    for latent in range(4):
        exact = pearsonr(pooled[:, latent], y).confidence_interval(0.95)
        assert (alone.low[latent], alone.high[latent]) == pytest.approx(tuple(exact), rel=1e-7)
    widths = (drawn.high - drawn.low) / (alone.high - alone.low)
    assert (np.abs(widths - 1) < 0.25).all()


def test_intervals_hold_the_true_r_where_rows_come_in_groups():
    covered = {"bootstrap": 0, "fisher": 0}
    group = np.arange(300) // 6
    for seed in range(60):
        random = np.random.default_rng(seed)
        y = (random.random(50) < 0.5).astype(float)[group]
        # Both are those of the group but for a little, so that 50 rows are worth as much.
        x = np.maximum(5 + random.normal(size=50)[group] + 0.6 * y, 0)[:, None]
        outcomes = Outcomes(y, group=group, n_shuffles=0, n_resamples=60, seed=seed)
        drawn = intervals(moments_of(x, outcomes, batch=300))
        alone = intervals(moments_of(x, Outcomes(y, n_shuffles=0, n_resamples=0), batch=300))
        truth = 0.3 / (1 + 0.09) ** 0.5
        covered["bootstrap"] += int(drawn.low[0] <= truth <= drawn.high[0])
        covered["fisher"] += int(alone.low[0] <= truth <= alone.high[0])
    assert covered["bootstrap"] >= 52
    assert covered["fisher"] <= 45


def test_groups_without_resamples_have_no_interval_and_without_shuffles_no_p():
    pooled, y = made()
    outcomes = Outcomes(y, group=np.arange(120) // 2, n_shuffles=0, n_resamples=0)
    found = moments_of(pooled, outcomes)
    assert np.isnan(intervals(found).low).all()
    with pytest.raises(ConfigError, match="come in groups"):
        p_values(found)


def test_a_planted_latent_is_picked_again_and_equal_ones_share_the_picks():
    pooled, y = made(n=400)
    random = np.random.default_rng(3)
    other = np.maximum(random.normal(size=(400, 16)), 0)
    outcomes = Outcomes(y, n_shuffles=0, n_resamples=80)
    found = {"a": moments_of(pooled[:, :5], outcomes), "b": moments_of(other, outcomes)}
    picks = pick_stability(found)
    first = picks.row(0, named=True)
    assert (first["hook_point"], first["latent"]) == ("a", 0)
    assert first["share"] == first["share_overall"] == 1.0
    noise = picks.filter(pl.col("hook_point") == "b")
    assert noise["share"].sum() == pytest.approx(1.0)
    assert noise["share"].max() < 0.9
    assert noise["share_overall"].sum() == 0
    # By hand: how often each has the largest r of its resample.
    r = found["b"].resampled_pearson().argmax(axis=0)
    expected = np.bincount(r, minlength=16) / 80
    assert dict(noise.select("latent", "share").iter_rows()) == {
        j: share for j, share in enumerate(expected) if share
    }


def test_no_pick_is_drawn_again_without_resamples():
    pooled, y = made()
    found = {"a": moments_of(pooled, Outcomes(y, n_shuffles=0, n_resamples=0))}
    with pytest.raises(ConfigError, match="drawn again"):
        pick_stability(found)
