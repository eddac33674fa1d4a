import numpy as np
import pytest
from contrast_data import made, sparse
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import hypergeom, norm

from fluoroscope.features.contrasts import Rows, contrast
from fluoroscope.features.permutation import permutation_null


def test_p_of_sparse_latents_in_a_small_group_is_that_of_exchanged_labels():
    random = np.random.default_rng(0)
    n, n_in, d_sae = 300, 20, 60
    label = np.arange(n) < n_in
    share = random.uniform(0.05, 0.4, d_sae)
    # Some are more often active in the group, so that there are small p as well.
    chance = np.where(label[:, None], np.minimum(share * random.uniform(0.5, 4, d_sae), 1), share)
    latents = (random.random((n, d_sae)) < chance) * random.lognormal(0, 1, (n, d_sae))
    found = contrast(sparse(latents), Rows(label, np.arange(n), np.zeros((n, 0))))
    centred = latents - latents.mean(axis=0)
    observed = np.abs(centred[label].sum(axis=0))
    as_large = np.zeros(d_sae)
    n_draws = 40_000
    for _ in range(20):
        order = random.random((n_draws // 20, n)).argpartition(n_in, axis=1)[:, :n_in]
        drawn = np.zeros((n_draws // 20, n))
        np.put_along_axis(drawn, order, 1, axis=1)
        as_large += (np.abs(drawn @ centred) >= observed - 1e-9).sum(axis=0)
    exact = as_large / n_draws
    can_be_told = (as_large > 25) & (exact < 0.05)
    assert can_be_told.sum() > 10
    assert exact[can_be_told].min() < 0.004
    ratio = found["p_score"].to_numpy()[can_be_told] / exact[can_be_told]
    assert ratio.min() > 0.6
    assert ratio.max() < 1.7
    normal = 2 * norm.sf(np.abs(found["score_z"].to_numpy()))[can_be_told]
    assert (normal / exact[can_be_told]).min() < 0.2


@pytest.mark.parametrize("n_both", [10, 12, 16, 20])
def test_p_far_in_the_tail_is_about_the_exact_one_where_the_normal_is_wrong_by_far(n_both):
    n, n_in, n_active = 3000, 200, 60
    latent = np.zeros((n, 1))
    latent[:n_both] = latent[n_in : n_in + n_active - n_both] = 1
    found = contrast(sparse(latent), Rows(np.arange(n) < n_in, np.arange(n), np.zeros((n, 0))))
    exact = hypergeom(n, n_active, n_in).sf(n_both - 1)
    assert 1 < found["p_score"].item() / exact < 1.5
    assert 2 * norm.sf(found["score_z"].item()) < exact / 3


def test_the_score_is_that_of_a_logistic_regression_of_labels():
    latents, rows = made()
    clusters = np.unique(rows.cluster)
    of = rows.cluster[:, None] == clusters
    length = of.sum(axis=0)
    means = of.T @ latents.astype(float) / length[:, None]
    label = (of.T @ rows.group > 0).astype(float)
    strata = (of.T @ rows.strata) // length
    covariates = of.T @ rows.covariates[:, :2] / length[:, None]
    covariates = np.column_stack([covariates, np.log(length)])
    design = np.column_stack([covariates, *(strata == s for s in range(3))])
    within = covariates - np.array([covariates[strata == s].mean(axis=0) for s in strata])
    spread = within.T @ within / len(label)

    def loss(beta):
        odds = design @ beta
        return np.logaddexp(0, odds).sum() - label @ odds + beta[:3] @ spread @ beta[:3] / 2

    chance = expit(design @ minimize(loss, np.zeros(6), tol=1e-12).x)
    weight = chance * (1 - chance)
    weighted = design * weight[:, None]
    found = contrast(sparse(latents), rows)
    for latent in (0, 8, 11):
        x = means[:, latent]
        x = x - design @ np.linalg.solve(weighted.T @ design, weighted.T @ x)
        spent = len(label) / (len(label) - 6)
        expected = x @ (label - chance) / np.sqrt(spent * weight @ x**2)
        assert found["score_z"][latent] == pytest.approx(expected, rel=1e-4)


def test_labels_that_agree_within_clusters_are_not_taken_for_independent():
    random = np.random.default_rng(0)
    cluster = np.repeat(np.arange(300), 5)
    latents = np.maximum(
        random.normal(size=(300, 400))[cluster] + random.normal(size=(1500, 400)), 0
    )
    rows = Rows(np.ones(1500, bool), cluster, random.normal(size=(1500, 1)))
    shares = []
    for _ in range(6):
        group = random.random(1500) < random.choice([0.1, 0.9], 300)[cluster]
        found = contrast(sparse(latents), rows.with_group(group))
        shares.append([(found[p] < 0.05).mean() for p in ("p_score", "p_welch")])
    score, welch = np.mean(shares, axis=0)
    assert 0.03 < score < 0.06
    assert welch > 0.12


def test_strata_that_are_all_in_or_all_out_say_nothing():
    latents, rows = made()
    more, others = made(seed=5)
    cluster = np.concatenate([rows.cluster, others.cluster + 10_000])
    whole = Rows(
        np.concatenate([rows.group, np.ones(len(others), bool)]),
        cluster,
        np.concatenate([rows.covariates, others.covariates]),
        np.concatenate([rows.strata, np.full(len(others), 9)]),
    )
    found = contrast(sparse(np.concatenate([latents, more])), whole)
    alone = contrast(sparse(latents), rows)
    np.testing.assert_allclose(found["score_z"], alone["score_z"], rtol=1e-6)


def test_labels_that_strata_foretell_leave_nothing_to_chance():
    random = np.random.default_rng(0)
    strata = np.arange(200) % 4
    latents = np.maximum(random.normal(size=(200, 4)), 0)
    rows = Rows(strata > 1, np.arange(200), np.zeros((200, 0)), strata)
    found = contrast(sparse(latents), rows)
    assert found["p_score"].is_nan().all()
    assert found["p_welch"].is_finite().all()


def test_covariates_that_foretell_all_labels_do_not_break_the_regression():
    random = np.random.default_rng(0)
    covariate = random.normal(size=(200, 1))
    latents = np.maximum(random.normal(size=(200, 300)) + covariate, 0)
    rows = Rows(covariate[:, 0] > 0, np.arange(200), covariate)
    p = contrast(sparse(latents), rows)["p_score"]
    assert (p < 0.05).mean() < 0.07


def test_where_nothing_differs_it_finds_hardly_anything_in_a_small_group():
    random = np.random.default_rng(1)
    cluster = np.repeat(np.arange(300), 3)
    latents = np.maximum(random.normal(size=(900, 200)) - random.uniform(0.5, 2.5, 200), 0)
    latents *= random.lognormal(0, 1, latents.shape)
    rows = Rows((np.arange(300) < 20)[cluster], cluster, random.normal(size=(900, 1)))
    layers = {"0": sparse(latents)}
    score = permutation_null(layers, rows, n=60, statistic="score_z")["n_found"]
    assert (score > 0).mean() < 0.1
    adjusted = permutation_null(layers, rows, n=10, statistic="adjusted_t")["n_found"]
    assert (adjusted > 0).mean() > 0.5
