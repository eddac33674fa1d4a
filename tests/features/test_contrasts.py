import jaxtyping
import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from contrast_data import DEAD, EVEN, made, sparse
from polars.testing import assert_frame_equal
from scipy import stats
from scipy.sparse import csc_array
from statsmodels.stats.proportion import proportions_ztest

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.contrasts import TESTS, Rows, contrast, contrasts, top_latents

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def data():
    latents, rows = made()
    return latents.astype(float), rows, contrast(sparse(latents), rows)


def compared(found, name):
    """A column, and which of its latents are not the same in all rows."""
    varies = ~np.isin(found["latent"].to_numpy(), [DEAD, EVEN])
    return found[name].to_numpy()[varies], varies


def test_moments_are_those_of_numpy(data):
    latents, rows, found = data
    for name, part in (("in", latents[rows.group]), ("out", latents[~rows.group])):
        np.testing.assert_array_equal(found[f"n_{name}"], len(part))
        np.testing.assert_allclose(found[f"mean_{name}"], part.mean(0), **EXACT)
        np.testing.assert_allclose(found[f"std_{name}"], part.std(0), **EXACT)
        np.testing.assert_allclose(found[f"rate_{name}"], (part > 0).mean(0), **EXACT)
    in_clusters = [len(np.unique(rows.cluster[column > 0])) for column in latents.T]
    np.testing.assert_array_equal(found["clusters_active"], in_clusters)


def test_cohens_d_is_the_difference_over_the_pooled_deviation_by_hand():
    latents = np.array([[1], [3], [0], [0], [2]], np.float32)
    rows = Rows(np.array([1, 1, 0, 0, 0], bool), np.arange(5), np.zeros((5, 0)))
    # Means 2 and 2/3; squares 2 and 8/3 over 3 degrees of freedom.
    found = contrast(sparse(latents), rows)
    assert found["cohen_d"].item() == pytest.approx((2 - 2 / 3) / ((2 + 8 / 3) / 3) ** 0.5)
    # Of six pairs in is larger in five (1 > 0, 0; 3 > 0, 0, 2).
    assert found["auc"].item() == pytest.approx(5 / 6)


def test_welch_and_ranks_are_those_of_scipy(data):
    latents, rows, found = data
    t, varies = compared(found, "t")
    inside, outside = latents[rows.group][:, varies], latents[~rows.group][:, varies]
    welch = stats.ttest_ind(inside, outside, equal_var=False)
    np.testing.assert_allclose(t, welch.statistic, **EXACT)
    np.testing.assert_allclose(compared(found, "df")[0], welch.df, **EXACT)
    np.testing.assert_allclose(compared(found, "p_welch")[0], welch.pvalue, **EXACT)
    ranks = stats.mannwhitneyu(inside, outside, method="asymptotic")
    np.testing.assert_allclose(compared(found, "p_rank")[0], ranks.pvalue, **EXACT)
    auc = ranks.statistic / (len(inside) * len(outside))
    np.testing.assert_allclose(compared(found, "auc")[0], auc, **EXACT)


def test_the_test_of_shares_is_that_of_statsmodels(data):
    latents, rows, found = data
    for latent in np.flatnonzero(compared(found, "t")[1]):
        active = latents[:, latent] > 0
        counts = [active[rows.group].sum(), active[~rows.group].sum()]
        p = proportions_ztest(counts, [rows.group.sum(), (~rows.group).sum()])[1]
        np.testing.assert_allclose(found["p_rate"][int(latent)], p, **EXACT)


@pytest.mark.parametrize("kept", [[], [0, 1]])
def test_adjusted_differences_are_those_of_statsmodels(data, kept):
    latents, rows, found = data
    if not kept:
        rows = Rows(rows.group, rows.cluster, np.zeros((len(rows), 0)))
        found = contrast(csc_array(latents), rows)
    design = np.column_stack([rows.group, np.ones(len(rows)), rows.covariates[:, kept]])
    sd = (found["mean_in"] - found["mean_out"]) / found["cohen_d"]
    for latent in np.flatnonzero(compared(found, "t")[1]):
        fit = sm.OLS(latents[:, latent], design).fit(
            cov_type="cluster", cov_kwds={"groups": rows.cluster}, use_t=True
        )
        row = found.row(int(latent), named=True)
        got = [row["adjusted_d"], row["adjusted_se"], row["adjusted_t"], row["p_adjusted"]]
        scale = sd[int(latent)]
        expected = [fit.params[0] / scale, fit.bse[0] / scale, fit.tvalues[0], fit.pvalues[0]]
        np.testing.assert_allclose(got, expected, **EXACT)
        if not kept:
            df = min(len(set(rows.cluster[side])) for side in (rows.group, ~rows.group)) - 1
            p = 2 * stats.t.sf(abs(fit.tvalues[0]), df)
            np.testing.assert_allclose(row["p_clustered"], p, **EXACT)


def test_intervals_of_d_cover_it_95_times_of_100_where_rows_of_a_cluster_are_alike():
    # Latents are repetitions of one experiment: half of the variance is the cluster's, d is 0.8.
    random = np.random.default_rng(0)
    cluster = np.repeat(np.arange(150), 4)
    group = (np.arange(150) < 50)[cluster]
    shared = random.normal(size=(150, 600))[cluster]
    latents = 10 + (shared + random.normal(size=shared.shape)) / 2**0.5 + 0.8 * group[:, None]
    covered = []
    for clusters in (cluster, np.arange(600)):
        found = contrast(csc_array(latents), Rows(group, clusters, np.zeros((600, 0))))
        covered.append(((found["d_low"] < 0.8) & (found["d_high"] > 0.8)).mean())
    assert 0.935 < covered[0] < 0.97
    assert covered[1] < 0.85


def test_what_is_the_same_in_all_rows_is_no_test(data):
    _, rows, found = data
    for latent in (DEAD, EVEN):
        row = found.row(latent, named=True)
        assert np.isnan([row[f"p_{test}"] for test in TESTS]).all()
        assert np.isnan([row["cohen_d"], row["adjusted_d"], row["d_low"], row["score_z"]]).all()
    assert found["mean_in"][DEAD] == found["rate_out"][DEAD] == 0
    assert found["std_in"][EVEN] == 0
    latents, _ = made()
    both = contrasts({"a": sparse(latents)}, rows, min_clusters=1)
    assert both["n_tests"].unique().to_list() == [22]


def test_q_is_over_all_hook_points_together():
    latents, rows = made()
    more, _ = made(seed=1)
    more[rows.group, 0] += 2
    found = contrasts({"0.resid_post": sparse(latents), "1.resid_post": sparse(more)}, rows)
    assert found["hook_point"].unique(maintain_order=True).to_list() == [
        "0.resid_post",
        "1.resid_post",
    ]
    tested = found.filter("is_tested")
    assert (tested["clusters_active"] >= 10).all()
    assert tested["n_tests"].unique().to_list() == [len(tested)]
    for test in TESTS:
        expected = stats.false_discovery_control(tested[f"p_{test}"])
        np.testing.assert_allclose(tested[f"q_{test}"], expected)
    assert found.filter(~pl.col("is_tested"))["q_score"].is_nan().all()
    different = found.filter("is_different")
    assert different["q_score"].max() < 0.05
    assert ("1.resid_post", 0) in different.select("hook_point", "latent").rows()
    parts = [contrast(sparse(each), rows) for each in (latents, more)]
    assert_frame_equal(found.select(parts[0].columns), pl.concat(parts))


def test_the_order_of_rows_does_not_matter(data):
    latents, rows, found = data
    order = np.random.default_rng(0).permutation(len(rows))
    again = contrast(csc_array(latents[order]), rows.take(order))
    assert_frame_equal(again, found, rel_tol=1e-8, abs_tol=1e-10)


def test_latents_together_are_latents_one_by_one(data):
    latents, rows, found = data
    alone = [contrast(csc_array(latents[:, [j]]), rows) for j in range(latents.shape[1])]
    joined = pl.concat(alone).with_columns(found["latent"])
    assert_frame_equal(joined, found, rel_tol=1e-9, abs_tol=1e-12)


def test_exchanged_groups_change_signs_and_nothing_else(data):
    latents, rows, found = data
    other = contrast(csc_array(latents), rows.with_group(~rows.group))
    for name in ("cohen_d", "t", "rate_difference", "adjusted_d", "adjusted_t", "score_z"):
        np.testing.assert_allclose(other[name], -found[name].to_numpy(), rtol=1e-8, atol=1e-10)
    for name in [f"p_{test}" for test in TESTS]:
        np.testing.assert_allclose(other[name], found[name], rtol=1e-8)
    np.testing.assert_allclose(other["auc"], 1 - found["auc"].to_numpy())
    np.testing.assert_allclose(other["d_low"], -found["d_high"].to_numpy(), rtol=1e-8)


def test_repeated_rows_of_a_cluster_do_not_make_clustered_errors_smaller(data):
    latents, rows, found = data
    repeated = np.repeat(np.arange(len(rows)), 20)
    again = contrast(csc_array(latents[repeated]), rows.take(repeated))
    # All but the factor (n - 1) / (n - columns), which hardly differs from one.
    np.testing.assert_allclose(again["adjusted_se"], found["adjusted_se"], rtol=0.01)
    np.testing.assert_allclose(again["score_z"], found["score_z"], rtol=1e-8)
    np.testing.assert_allclose(again["p_score"], found["p_score"], rtol=1e-8)
    np.testing.assert_allclose(again["d_low"], found["d_low"], atol=0.02)
    welch = compared(again, "t")[0] / compared(found, "t")[0]
    np.testing.assert_allclose(welch, 20**0.5, rtol=0.01)


def test_a_latent_that_follows_the_balance_differs_only_until_that_is_adjusted_for():
    random = np.random.default_rng(0)
    cluster = np.repeat(np.arange(400), 3)
    label = random.random(400) < 0.3
    group = label[cluster]
    balance = random.normal(100, 20, len(cluster)) - 40 * group
    latent = np.maximum(200 - balance + random.normal(0, 5, len(cluster)), 0)
    own = np.maximum(random.normal(0, 1, len(cluster)) + group, 0)
    latents = sparse(np.column_stack([latent, own]).astype(np.float32))
    found = contrast(latents, Rows(group, cluster, balance[:, None]))
    confounded, real = found.rows(named=True)
    assert confounded["cohen_d"] > 1.5
    assert abs(confounded["adjusted_d"]) < 1.97 * confounded["adjusted_se"]
    assert confounded["p_score"] > 0.05
    assert real["adjusted_d"] > 1.97 * real["adjusted_se"]
    assert real["p_score"] < 1e-3


def test_labels_may_vary_within_clusters():
    latents, rows = made()
    group = np.random.default_rng(0).random(len(rows)) < 0.3
    latents[group, 7] += 3
    found = contrasts({"a": sparse(latents)}, rows.with_group(group))
    assert found.filter("is_different")["latent"].to_list() == [7]


def test_explicit_zeros_and_disorder_in_the_storage_do_not_matter(data):
    latents, rows, found = data
    kept = sparse(latents.astype(np.float32))
    row, column = kept.nonzero()
    order = np.random.default_rng(0).permutation(len(row))
    shape = latents.shape
    where = np.argsort(column[order], kind="stable")
    indices = row[order][where]
    loose = csc_array((np.ones(len(row), np.float32), indices, kept.indptr), shape=shape)
    loose.data[:] = latents[indices, np.repeat(np.arange(shape[1]), np.diff(kept.indptr))]
    assert_frame_equal(contrast(loose, rows), found)
    padded = csc_array(np.ones_like(latents, np.float32))
    padded.data[:] = latents.T.ravel()
    assert_frame_equal(contrast(padded, rows), found)
    assert padded.nnz == latents.size


def test_a_group_of_one_row_or_of_one_cluster_has_no_errors_to_tell():
    latents, rows = made()
    single = rows.with_group(np.arange(len(rows)) == 0)
    found = contrast(sparse(latents), single)
    assert found["p_welch"].is_nan().all()
    assert found["p_clustered"].is_nan().all()
    assert found["d_low"].is_nan().all()
    assert found["cohen_d"].is_finite().any()


def test_top_latents_are_the_largest_of_each_hook_point():
    found = pl.DataFrame(
        {
            "hook_point": ["b"] * 5 + ["a"] * 2,
            "latent": [0, 1, 2, 3, 4, 0, 1],
            "cohen_d": [0.5, -2.0, float("nan"), 0.5, None, 0.1, -0.2],
        }
    )
    top = top_latents(found, 2).select("hook_point", "latent").rows()
    assert top == [("b", 1), ("b", 0), ("a", 1), ("a", 0)]
    assert top_latents(found, 9)["latent"].to_list() == [1, 0, 3, 1, 0]
    with pytest.raises(ConfigError, match="ordered by 'size'"):
        top_latents(found, 2, by="size")


def test_what_cannot_be_contrasted_is_named():
    latents, rows = made()
    n = len(rows)
    with pytest.raises(ConfigError, match=r"of 3.mlp_out are of shape \(5, 24\).* 400 rows"):
        contrasts({"3.mlp_out": sparse(latents[:5])}, rows)
    for value, message in ((np.nan, "a NaN"), (-1, "negative values")):
        wrong = latents.copy()
        wrong[0, 0] = value
        with pytest.raises(ConfigError, match=f"The latents of a have {message}"):
            contrasts({"a": sparse(wrong)}, rows)
    for group, side in ((np.zeros(n, bool), "in"), (np.ones(n, bool), "out of")):
        with pytest.raises(ConfigError, match=f"none is {side} the group"):
            contrast(sparse(latents), rows.with_group(group))
    with pytest.raises(ConfigError, match="no hook point"):
        contrasts({}, rows)
    with pytest.raises(ConfigError, match="covariates say all of the group"):
        contrast(sparse(latents), Rows(rows.group, rows.cluster, rows.group[:, None] * 2.0))


def test_rows_that_do_not_fit_together_are_named(monkeypatch):
    _, rows = made()
    group, cluster, covariates = rows.group, rows.cluster, rows.covariates
    with pytest.raises(ConfigError, match="all be of one stratum"):
        Rows(group, cluster, covariates, np.arange(len(rows)))
    wrong = covariates.copy()
    wrong[4, 1] = np.nan
    with pytest.raises(ConfigError, match="Covariate 1 has a NaN"):
        Rows(group, cluster, wrong)
    # Without the check of signatures, which only tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for lengths in ((399, 400, 400), (400, 399, 400), (400, 400, 399)):
        parts = [
            part[:n] for part, n in zip((cluster, covariates, rows.strata), lengths, strict=True)
        ]
        with pytest.raises(ConfigError, match=r"group has 400 rows, but \w+ has 399"):
            Rows(group, *parts)
