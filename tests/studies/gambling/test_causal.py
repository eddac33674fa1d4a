"""The verdict on a latent: each rule alone can refuse it, and controls are judged alike."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr, ttest_1samp

from fluoroscope.studies.gambling.causal import (
    N_DOSES,
    Doses,
    Screened,
    control_verdicts,
    dose_response,
    mean_test,
    rank_p,
    screened_table,
    verdicts,
)
from fluoroscope.studies.gambling.settings import PatchSettings

S, M, C = 40, 1, 20
SETTINGS = PatchSettings()
DOSES = np.linspace(0.1, -0.1, N_DOSES)
"""The share of stopping falls from the safe mean to the bankrupt one."""


def noise(*shape: int, scale: float = 0.005, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape)


def judged(
    latent: np.ndarray = DOSES, discovery: tuple[float, float] = (0.1, -0.1), *,
    controls: float = 0.0, is_legible: bool = True, settings: PatchSettings = SETTINGS,
    scale: float = 0.005,
) -> dict:  # fmt: skip
    """The verdict on one latent with these effects at five doses in held-out states."""
    found = Screened(
        discovery[0] + noise(S, M, scale=scale, seed=1),
        discovery[1] + noise(S, M, scale=scale, seed=2),
    )
    shortlist = pl.concat(
        [pl.DataFrame({"hook_point": ["3.resid_post"], "latent": [7]}), screened_table(found)],
        how="horizontal",
    )
    way = np.linspace(controls / 2, -controls / 2, N_DOSES)
    doses = Doses(
        latent + noise(S, M, N_DOSES, scale=scale, seed=3),
        way + noise(S, M, C, N_DOSES, seed=4),
        way + noise(S, M, C, N_DOSES, seed=5),
    )
    return verdicts(shortlist, doses, settings, is_legible=is_legible).row(0, named=True)


def test_a_latent_that_passes_every_rule_is_causal():
    row = judged()
    rules = ("is_opposite", "is_significant", "is_large", "exceeds_controls", "follows_dose")
    assert row["is_causal"]
    assert all(row[rule] for rule in (*rules, "replicates"))


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        ("is_opposite", {"discovery": (-0.05, -0.25)}),
        ("is_significant", {"scale": 3.0}),
        ("is_large", {"settings": PatchSettings(min_effect=0.5)}),
        ("exceeds_controls", {"controls": 0.4}),
        ("follows_dose", {"latent": np.array([0.1, -0.12, 0.11, 0.12, -0.1])}),
        ("replicates", {"latent": -DOSES}),
    ],
)
def test_one_broken_rule_is_enough_to_refuse_a_latent(rule, made):
    row = judged(**made)
    assert not row[rule]
    assert not row["is_causal"]


def test_no_latent_of_a_model_that_does_not_decide_is_causal():
    row = judged(is_legible=False)
    assert row["is_opposite"]
    assert row["replicates"]
    assert not row["is_causal"]


def test_exchangeable_controls_are_declared_at_most_at_the_nominal_rate():
    # Every control has an effect of its own, as large as they come: none is special.
    random = np.random.default_rng(0)
    n_latents = 40
    size = random.normal(0, 0.2, (2, 1, n_latents, C, 1))
    way = np.linspace(0.5, -0.5, N_DOSES)
    doses = Doses(
        np.zeros((S, n_latents, N_DOSES)),
        size[0] * way + random.normal(0, 0.005, (S, n_latents, C, N_DOSES)),
        size[1] * way + random.normal(0, 0.005, (S, n_latents, C, N_DOSES)),
    )
    found = control_verdicts(doses, PatchSettings(controls=C))
    assert found.height == 2 * n_latents * C
    assert found["passes_others"].mean() > 0.5
    assert 0 < found["is_declared"].mean() <= 0.05


def test_means_are_tested_as_scipy_does():
    values = noise(30, 6, scale=1.0) + np.linspace(-1, 1, 6)
    mean, low, high, p = mean_test(values)
    known = ttest_1samp(values, 0)
    interval = known.confidence_interval(0.95)
    np.testing.assert_allclose(p, known.pvalue, rtol=1e-10)
    np.testing.assert_allclose([low, high], [interval.low, interval.high], rtol=1e-10)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)


def test_states_of_one_repetition_do_not_count_as_many():
    values = np.repeat(noise(12, 3, scale=1.0), 5, axis=0)
    cluster = np.repeat(np.arange(12), 5)
    alone = mean_test(values[::5])
    np.testing.assert_allclose(mean_test(values, cluster), alone, rtol=1e-10)
    assert (mean_test(values)[3] < alone[3]).all()
    assert np.isnan(mean_test(values, np.repeat(np.arange(6), 10))[3]).all()


def test_means_are_tested_as_statsmodels_does_with_clusters():
    from statsmodels.api import OLS

    values, cluster = noise(60, 1, scale=1.0) + 0.3, np.arange(60) // 4
    fit = OLS(values[:, 0], np.ones(60)).fit(
        cov_type="cluster", use_t=True, cov_kwds={"groups": cluster}
    )
    mean, low, high, p = mean_test(values, cluster)
    np.testing.assert_allclose([mean[0], low[0], high[0]], [fit.params[0], *fit.conf_int()[0]])
    np.testing.assert_allclose(p[0], fit.pvalues[0])


def test_a_rank_among_controls_is_a_p_value():
    controls = np.arange(1, 21, dtype=float)[None]
    ranks = [float(rank_p(np.array([x]), controls)[0]) for x in (20.5, 20.0, 19.5, 0.5)]
    np.testing.assert_allclose(ranks, [1 / 21, 2 / 21, 2 / 21, 1.0])


def test_settings_under_which_nothing_could_be_causal_are_refused():
    with pytest.raises(ValueError, match="take 20 or more"):
        PatchSettings(controls=10)


def test_a_test_needs_ten_states_and_a_difference_between_them():
    assert np.isnan(mean_test(noise(9, 2))[3]).all()
    assert np.isnan(mean_test(np.ones((20, 2)))[3]).all()


def test_dose_and_response_are_correlated_as_scipy_does():
    effects = noise(12, 8, N_DOSES, scale=1.0)
    expected = [spearmanr(np.arange(N_DOSES), row).statistic for row in effects.mean(axis=0)]
    np.testing.assert_allclose(dose_response(effects), expected, atol=1e-12)


def test_a_latent_without_any_effect_follows_no_dose():
    assert dose_response(np.zeros((12, 3, N_DOSES))).tolist() == [0, 0, 0]
