import numpy as np
import pytest
from correlation_data import DEAD, EVEN, FAR, made, moments_of, naive_pearson
from scipy.sparse import csr_array
from scipy.stats import pearsonr, skew

from fluoroscope.core.errors import ConfigError, MismatchError, NumericsError
from fluoroscope.features.correlation import FAILURE, POSITIVE, SUCCESS, OutcomeMoments
from fluoroscope.features.correlation_outcomes import Outcomes


def few(y, **settings):
    return Outcomes(y, **{"n_shuffles": 7, "n_resamples": 5, **settings})


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 120])
def test_r_is_that_of_scipy(graded, batch):
    pooled, y = made(graded=graded)
    found = moments_of(pooled, few(y), batch=batch).pearson()
    for latent in range(pooled.shape[1]):
        if latent in (DEAD, EVEN):
            assert np.isnan(found[latent])
        else:
            assert abs(found[latent] - pearsonr(pooled[:, latent], y).statistic) < 1e-9


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_r_is_that_of_scipy_however_badly_the_data_lie(scale):
    random = np.random.default_rng(1)
    y = (random.random(500) < 0.3).astype(float)
    x = 1e6 + scale * (random.normal(size=(500, 3)) + y[:, None])
    # One far outlier first, one zero late, one value that is the pivot's opposite.
    x[0, 0] = 1.0
    x[400, 1] = 0.0
    found = moments_of(x, few(y), batch=64).pearson()
    for latent in range(3):
        assert abs(found[latent] - pearsonr(x[:, latent], y).statistic) < 1e-9


def test_parts_merge_to_the_whole_in_any_order():
    pooled, y = made()
    outcomes = few(y)
    whole = moments_of(pooled, outcomes)
    cuts = [np.arange(0, 50), np.arange(50, 51), np.arange(51, 120)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        merged = OutcomeMoments(pooled.shape[1], outcomes)
        for part in order:
            merged.merge(moments_of(pooled, outcomes, cuts[part]))
        assert merged.n == 120
        for name in ("pearson", "shuffled_pearson", "resampled_pearson", "mutual_information"):
            mine, all_of_it = getattr(merged, name)(), getattr(whole, name)()
            np.testing.assert_allclose(mine, all_of_it, atol=1e-9, rtol=0)
        np.testing.assert_allclose(merged.skewness(), whole.skewness(), rtol=1e-6)
        np.testing.assert_array_equal(merged.active_side, whole.active_side)
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
        np.testing.assert_array_equal(merged.active_quantile(0.7), whole.active_quantile(0.7))


def test_merging_leaves_the_other_as_it_was_and_the_same_order_gives_the_same_bytes():
    pooled, y = made()
    outcomes = few(y)

    def parts():
        return [moments_of(pooled, outcomes, rows) for rows in np.array_split(np.arange(120), 3)]

    first, second = parts(), parts()
    before = {name: array.copy() for name, array in first[1].state().items()}
    for some in (first, second):
        some[0].merge(some[1])
        some[0].merge(some[2])
    assert all(np.array_equal(before[key], value) for key, value in first[1].state().items())
    one, other = first[0].state(), second[0].state()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_a_state_makes_the_same_object_and_no_other_outcomes_load_it():
    pooled, y = made()
    found = moments_of(pooled, few(y), np.arange(60))
    again = OutcomeMoments.from_state(found.state(), few(y))
    for each in (found, again):
        each.add(np.arange(60, 120), csr_array(pooled[60:]))
    assert all(np.array_equal(found.state()[name], value) for name, value in again.state().items())
    with pytest.raises(MismatchError, match="other outcomes"):
        OutcomeMoments.from_state(found.state(), few(y, seed=1))


def test_shuffles_and_resamples_have_the_r_of_their_rows():
    pooled, y = made(graded=True)
    group = np.arange(120) // 3
    outcomes = few(y, group=group)
    found = moments_of(pooled, outcomes)
    columns, weights = outcomes.columns(np.arange(120)), outcomes.weights(np.arange(120))
    shuffled, resampled = found.shuffled_pearson(), found.resampled_pearson()
    for latent in range(pooled.shape[1]):
        x = pooled[:, latent]
        naive = [naive_pearson(x, columns[:, 1 + i]) for i in range(7)]
        np.testing.assert_allclose(shuffled[latent], naive, atol=1e-8)
        if latent != FAR:
            naive = [naive_pearson(x, y, weights[:, i]) for i in range(5)]
            np.testing.assert_allclose(resampled[latent], naive, atol=1e-9)


def test_a_shortlist_is_resampled_as_all_are():
    pooled, y = made()
    whole = moments_of(pooled, few(y))
    some = moments_of(pooled, few(y), resampled=np.array([9, FAR, 0]))
    assert some.resampled.tolist() == [0, FAR, 9]
    np.testing.assert_array_equal(some.resampled_pearson(), whole.resampled_pearson()[[0, FAR, 9]])


def test_sides_count_and_add_what_dense_rows_do():
    pooled, y = made(graded=True)
    y[:5] = 0
    found = moments_of(pooled, few(y, threshold=0.7))
    for side, rows in ((POSITIVE, y > 0), (SUCCESS, y >= 0.7), (FAILURE, y < 0.7)):
        assert found.n_side[side] == rows.sum()
        np.testing.assert_array_equal(found.active_side[:, side], (pooled[rows] > 0).sum(axis=0))
        np.testing.assert_allclose(found.side_mean(side), pooled[rows].mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.active, (pooled > 0).sum(axis=0))
    np.testing.assert_allclose(found.mean, pooled.mean(axis=0), rtol=1e-12)
    mean_active = [x[x > 0].mean() if x.any() else np.nan for x in pooled.T]
    np.testing.assert_allclose(found.mean_active, mean_active, rtol=1e-12)
    fisher = (pooled[y >= 0.7] ** 2).mean(axis=0) / (pooled[y < 0.7] ** 2).mean(axis=0).clip(1e-300)
    fisher[DEAD] = np.nan
    np.testing.assert_allclose(found.fisher(), fisher, rtol=1e-12)


def test_a_latent_of_successes_alone_has_an_infinite_fisher_ratio():
    pooled, y = np.zeros((20, 2)), np.arange(20) % 2.0
    pooled[1, 0] = pooled[0, 1] = 1
    found = moments_of(pooled, few(y)).fisher()
    assert found.tolist() == [np.inf, 0.0]


def test_skewness_of_r_is_that_over_all_orders():
    from itertools import permutations

    x, y = np.array([0, 0, 0, 0, 3.0, 1.0, 0]), np.array([0, 0, 0, 0, 0, 1.0, 1.0])
    found = moments_of(x[:, None], few(y)).skewness()[0]
    over_all = [pearsonr(x, y[list(order)]).statistic for order in set(permutations(range(7)))]
    assert found == pytest.approx(skew(over_all), rel=1e-9)
    assert np.var(over_all) == pytest.approx(1 / 6, rel=1e-9)


def test_an_outcome_that_never_varies_is_said_so():
    pooled, _ = made()
    found = moments_of(pooled, few(np.ones(120)))
    for ask in (found.pearson, found.shuffled_pearson, found.resampled_pearson):
        with pytest.raises(ConfigError, match="in all 120 rows"):
            ask()
    assert found.side_mean(SUCCESS)[EVEN] == pytest.approx(0.3)
    assert np.isnan(found.side_mean(FAILURE)).all()
    with pytest.raises(ConfigError, match="seen in no row"):
        OutcomeMoments(16, few(np.ones(120))).pearson()


def test_a_row_cannot_be_added_or_merged_twice():
    pooled, y = made()
    found, other = moments_of(pooled, few(y), [0, 1, 2]), moments_of(pooled, few(y), [2, 3])
    with pytest.raises(ConfigError, match="added before"):
        found.add(np.array([2]), csr_array(pooled[[2]]))
    with pytest.raises(ConfigError, match="added before"):
        found.add(np.array([7, 7]), csr_array(pooled[[7, 7]]))
    with pytest.raises(ConfigError, match="sample 2"):
        found.merge(other)
    with pytest.raises(MismatchError):
        found.merge(moments_of(pooled, few(y, seed=3), [5]))


def test_wrong_rows_are_refused():
    pooled, y = made()
    found = OutcomeMoments(16, few(y))
    with pytest.raises(ConfigError, match="shape"):
        found.add(np.array([0]), csr_array(pooled[:2]))
    with pytest.raises(ConfigError, match="0 to 119"):
        found.add(np.array([120]), csr_array(pooled[:1]))
    pooled[0, 0] = np.nan
    with pytest.raises(NumericsError):
        found.add(np.array([0]), csr_array(pooled[:1]))


def test_what_is_held_does_not_grow_with_the_rows():
    sizes = []
    for n in (200, 2000):
        pooled, y = made(n=n)
        state = moments_of(pooled, few(y), batch=100).state()
        held = {name: a.nbytes for name, a in state.items() if not name.startswith("bins")}
        sizes.append(sum(held.values()) - held["seen"])
        assert state["bins_counts"].size < 16 * 2 * 58 * 4
    assert sizes[0] == sizes[1]
