"""Verdicts on synthetic effects: each rule alone switches one off, and nothing passes by chance."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.causal import (
    MIN_STATES,
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

S, C = 40, 20
SETTINGS = PatchSettings(min_effect=0.02, controls=C)
RULES = [
    "is_opposite", "is_significant", "is_large", "exceeds_controls", "follows_dose", "replicates",
]  # fmt: skip
# A latent that is a cause: the mean of safe games makes stopping likelier, that of bankrupt ones
# less so.
CURVE = np.linspace(0.1, -0.1, N_DOSES)


def noise(*shape: int, seed: int = 0, scale: float = 0.01) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


def controls_of(n_latents: int, scale: float = 0.01, seed: int = 1) -> dict[str, np.ndarray]:
    """Controls whose curves are chance, the same in all states, and a little noise."""
    shape = (n_latents, C, N_DOSES)
    own = {"random_latents": seed, "random_directions": seed + 1}
    return {
        name: noise(*shape, seed=one, scale=scale) + noise(S, *shape, seed=one + 9, scale=0.001)
        for name, one in own.items()
    }


def judged(
    found: np.ndarray, held_out: np.ndarray, scale: float = 0.01, *, is_legible: bool = True, **own
) -> pl.DataFrame:
    """The verdict on one latent, from mean curves in discovery and in held-out states."""
    first = (found + noise(S, N_DOSES))[:, None]
    again = (held_out + noise(S, N_DOSES, seed=5))[:, None]
    shortlist = screened_table(Screened(first[..., 0], first[..., -1]))
    shortlist = shortlist.with_columns(hook_point=pl.lit("3.resid_post"), latent=pl.lit(7))
    doses = Doses(again, **controls_of(1, scale))
    settings = SETTINGS.model_copy(update=own)
    return verdicts(shortlist, doses, settings, is_legible=is_legible)


def failing(table: pl.DataFrame) -> set[str]:
    return {rule for rule in RULES if not table[rule][0]}


def test_a_latent_that_keeps_all_rules_is_causal():
    table = judged(CURVE, CURVE)
    assert failing(table) == set()
    assert table["is_causal"][0]
    mirrored = judged(-CURVE, -CURVE)
    assert mirrored["is_causal"][0]


def test_a_latent_whose_means_push_the_same_way_is_not_causal():
    one_sided = CURVE + 0.15
    table = judged(one_sided, one_sided)
    assert failing(table) == {"is_opposite"}
    assert not table["is_causal"][0]
    # Opposite must hold in the states of discovery and in those held out.
    assert failing(judged(CURVE, one_sided)) == {"is_opposite"}
    assert failing(judged(one_sided, CURVE)) == {"is_opposite"}


def test_a_latent_that_would_not_survive_the_others_is_not_causal():
    weak = noise(S, 1, scale=0.08, seed=3)
    # A mean effect with p = 0.02 alone.
    weak += 2.4 * weak.std(ddof=1) / np.sqrt(S) - weak.mean()
    alone = screened_table(Screened(weak / 2, -weak / 2))
    assert alone["q"][0] == pytest.approx(0.021, abs=0.002)
    many = noise(S, 400, scale=0.08, seed=4)
    both = screened_table(
        Screened(np.hstack([weak / 2, many]), np.hstack([-weak / 2, np.zeros((S, 400))]))
    )
    assert both["p"][0] == pytest.approx(alone["p"][0])
    assert both["q"][0] > 0.05
    doses = Doses((CURVE + noise(S, N_DOSES))[:, None], **controls_of(1))
    table = verdicts(both.head(1), doses, SETTINGS, is_legible=True)
    assert failing(table) == {"is_significant"}
    assert not table["is_causal"][0]


def test_a_small_effect_is_not_causal_however_certain():
    table = judged(CURVE, CURVE, min_effect=0.25)
    assert failing(table) == {"is_large"}
    assert not table["is_causal"][0]


def test_an_effect_that_its_controls_have_as_well_is_not_causal():
    table = judged(CURVE, CURVE, scale=0.2)
    assert failing(table) == {"exceeds_controls"}
    assert not table["is_causal"][0]


@pytest.mark.parametrize("kind", ["random_latents", "random_directions"])
def test_one_kind_of_control_is_enough_to_refuse(kind):
    curve = (CURVE + noise(S, N_DOSES))[:, None]
    shortlist = screened_table(Screened(curve[..., 0], curve[..., -1]))
    large = controls_of(1, scale=0.2)[kind]
    doses = Doses(curve, **{**controls_of(1), kind: large})
    assert failing(verdicts(shortlist, doses, SETTINGS, is_legible=True)) == {"exceeds_controls"}


@pytest.mark.parametrize("curve", [[0.1, -0.02, 0.05, -0.05, -0.1], [0.1, 0.09, 0.1, 0.1, -0.1]])
def test_an_effect_that_does_not_follow_the_dose_is_not_causal(curve):
    table = judged(CURVE, np.array(curve))
    assert failing(table) == {"follows_dose"}
    assert not table["is_causal"][0]


def test_an_effect_that_turns_round_in_held_out_games_is_not_causal():
    table = judged(CURVE, -CURVE)
    assert failing(table) == {"replicates"}
    assert not table["is_causal"][0]


def test_an_effect_that_is_lost_in_held_out_games_is_not_causal():
    table = judged(CURVE, 0.02 * CURVE, scale=0.0001)
    assert "replicates" in failing(table)
    assert not table["is_causal"][0]


def test_nothing_is_causal_of_decisions_that_the_model_does_not_make():
    table = judged(CURVE, CURVE, is_legible=False)
    assert failing(table) == set()
    assert not table["is_causal"][0]


def test_states_that_share_their_luck_are_not_counted_as_many():
    values = np.repeat(noise(5, 1, seed=2, scale=1) + 0.9, 20, axis=0)
    assert mean_test(values)[3][0] < 0.001
    assert np.isnan(mean_test(values, np.repeat(np.arange(5), 20))[3][0])
    twelve = np.repeat(noise(12, 1, seed=2, scale=1) + 0.5, 9, axis=0)
    _, low, high, p = mean_test(twelve, np.repeat(np.arange(12), 9))
    wanted = stats.ttest_1samp(twelve[::9, 0], 0)
    assert p[0] == pytest.approx(wanted.pvalue, rel=1e-9)
    assert (low[0], high[0]) == pytest.approx(tuple(wanted.confidence_interval()), rel=1e-9)


@pytest.mark.parametrize("n_latents", [6])
def test_controls_that_are_like_each_other_are_declared_no_oftener_than_they_may(n_latents):
    # Every control is as large as any latent: no rule but the rank among its fellows can refuse.
    shape = (S, n_latents, C, N_DOSES)
    shares = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        slope = random.standard_normal((2, n_latents, C))[:, None, ..., None] * CURVE
        own = [slope[i] + noise(*shape, seed=seed + i, scale=0.001) for i in range(2)]
        doses = Doses(np.zeros((S, n_latents, N_DOSES)), *own)
        found = control_verdicts(doses, SETTINGS.model_copy(update={"min_effect": 0.0}))
        assert found["passes_others"].mean() > 0.9
        assert len(found) == 2 * n_latents * C
        shares.append(found["is_declared"].mean())
    n = 5 * 2 * n_latents * C
    assert 0 < np.mean(shares) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)


def test_controls_without_any_effect_are_hardly_ever_declared():
    shape = (S, 6, C, N_DOSES)
    own = [noise(*shape, seed=seed, scale=0.05) for seed in (1, 2)]
    found = control_verdicts(Doses(np.zeros((S, 6, N_DOSES)), *own), SETTINGS)
    assert found["is_declared"].mean() < 0.01


def test_a_latent_is_ranked_among_its_controls_and_itself():
    controls = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    assert rank_p(np.array([2.5, 5.0]), controls).tolist() == [3 / 5, 1 / 5]
    assert rank_p(np.array([1.0]), np.zeros((1, 0))).tolist() == [1.0]


def test_too_few_controls_for_the_level_are_refused():
    with pytest.raises(ConfigError, match="take 20 or more"):
        build(PatchSettings, {"controls": 19})


def test_means_are_tested_as_scipy_does():
    values = np.random.default_rng(0).standard_normal((30, 50)) + 0.3
    mean, low, high, p = mean_test(values)
    wanted = stats.ttest_1samp(values, 0)
    interval = wanted.confidence_interval()
    np.testing.assert_allclose(p, wanted.pvalue, rtol=1e-12)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose([low, high], [interval.low, interval.high], rtol=1e-12, atol=1e-12)


def test_dose_and_response_are_correlated_as_scipy_does_with_ties():
    random = np.random.default_rng(0)
    effects = random.integers(-2, 3, size=(1, 60, N_DOSES)).astype(float)
    found = dose_response(effects)
    for j in range(60):
        if np.ptp(effects[0, j]):
            wanted = stats.spearmanr(np.arange(N_DOSES), effects[0, j]).statistic
            assert found[j] == pytest.approx(wanted, abs=1e-12)
        else:
            assert found[j] == 0


def test_of_few_states_nothing_is_known_and_nothing_is_called_causal():
    for n in (0, 1, MIN_STATES - 1):
        curve = np.tile(CURVE, (n, 3, 1))
        controls = np.zeros((n, 3, C, N_DOSES))
        table = screened_table(Screened(curve[..., 0], curve[..., -1]))
        assert table["p"].is_nan().all()
        doses = Doses(curve, controls, controls)
        if n:
            assert not verdicts(table, doses, SETTINGS, is_legible=True)["is_causal"].any()
            assert not control_verdicts(doses, SETTINGS)["is_declared"].any()


def test_what_is_the_same_in_every_state_has_no_p():
    assert np.isnan(mean_test(np.full((12, 3), 0.1))[3]).all()
    assert np.isnan(mean_test(np.zeros((12, 3)))[3]).all()


def test_an_empty_shortlist_has_empty_verdicts():
    empty = screened_table(Screened(np.zeros((S, 0)), np.zeros((S, 0))))
    doses = Doses(np.zeros((S, 0, N_DOSES)), *[np.zeros((S, 0, C, N_DOSES))] * 2)
    assert len(verdicts(empty, doses, SETTINGS, is_legible=True)) == 0
    assert len(control_verdicts(doses, SETTINGS)) == 0
