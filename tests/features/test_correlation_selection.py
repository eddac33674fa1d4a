import numpy as np
import polars as pl
import pytest
from correlation_data import DEAD, EVEN, FAR, made, moments_of
from scipy.stats import false_discovery_control, pearsonr

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_outcomes import Outcomes
from fluoroscope.features.correlation_selection import (
    latent_table,
    random_controls,
    ranked,
    top_overall,
    top_per_layer,
    with_coefficients,
)


@pytest.fixture(scope="module")
def data():
    pooled, y = made(n=300)
    other, _ = made(n=300, seed=9)
    # A latent that goes with failure, and one that is rare and only ever with success.
    other[:, 1] = np.maximum(other[:, 1] + 2 * (1 - y), 0)
    other[:, 3] = 0
    other[np.flatnonzero(y)[:4], 3] = 1.0
    return {"0.resid_post": pooled, "1.resid_post": other}, y


@pytest.fixture(scope="module")
def table(data):
    pooled, y = data
    outcomes = Outcomes(y, n_shuffles=60, n_resamples=30)
    return latent_table({point: moments_of(x, outcomes) for point, x in pooled.items()})


def row_of(table, point, latent):
    return table.filter((pl.col("hook_point") == point) & (pl.col("latent") == latent)).row(
        0, named=True
    )


def test_a_row_says_what_dense_rows_say(data, table):
    pooled, y = data
    for point, latent in (("0.resid_post", 0), ("1.resid_post", 1), ("1.resid_post", 6)):
        x, row = pooled[point][:, latent], row_of(table, point, latent)
        assert row["r"] == pytest.approx(pearsonr(x, y).statistic, abs=1e-9)
        assert row["r_low"] < row["r"] < row["r_high"]
        assert row["sign"] == np.sign(row["r"])
        assert row["frequency"] == pytest.approx((x > 0).mean())
        assert row["frequency_success"] == pytest.approx((x[y == 1] > 0).mean())
        assert row["frequency_failure"] == pytest.approx((x[y == 0] > 0).mean())
        assert row["mean_difference"] == pytest.approx(x[y == 1].mean() - x[y == 0].mean())
        assert row["n"] == 300
        assert row["n_active"] == (x > 0).sum()


def test_q_is_over_the_tested_latents_of_all_layers(table):
    tested = table.filter("is_tested")
    np.testing.assert_allclose(tested["q"], false_discovery_control(tested["p"].to_numpy()))
    assert table["n_tests"].unique().to_list() == [len(tested)]
    left_out = table.filter(~pl.col("is_tested"))
    expected = {("0.resid_post", DEAD), ("0.resid_post", EVEN), ("1.resid_post", 3)}
    expected |= {("1.resid_post", DEAD), ("1.resid_post", EVEN)}
    assert set(left_out.select("hook_point", "latent").iter_rows()) == expected
    assert left_out["q"].is_nan().all()
    assert not left_out["is_significant"].any()


def test_planted_latents_pass_every_control(table):
    for point, latent in (("0.resid_post", 0), ("1.resid_post", 1)):
        row = row_of(table, point, latent)
        assert row["is_significant"]
        assert row["p_all"] == row["p_layer"] == pytest.approx(1 / 61)
    assert (table["p_all"].fill_nan(1) >= table["p_layer"].fill_nan(1)).all()


@pytest.mark.parametrize("by", ["r", "mutual_information", "fisher", "mean_difference"])
def test_the_planted_latent_is_the_best_of_its_layer_by_every_ranking(table, by):
    # The one far away has the largest difference of means of all that is not planted.
    table = table.filter(pl.col("latent") != FAR)
    best = top_per_layer(table, by)
    assert best["hook_point"].to_list() == ["0.resid_post", "1.resid_post"]
    assert best["latent"][0] == 0
    assert (best["r"] > 0).all()
    worst = top_per_layer(table, by, "negative")
    assert worst["latent"][1] == 1
    assert (worst["r"] < 0).all()
    assert top_overall(table, by)["latent"].to_list() == [0]
    either = {*top_per_layer(table, by, "either").select("hook_point", "latent").iter_rows()}
    assert either == {("0.resid_post", 0), ("1.resid_post", 1)}


def test_ranks_run_from_the_largest_r_to_the_smallest(table):
    order = ranked(table, "r", "positive")
    assert order["r"].is_sorted(descending=True)
    assert order["rank"].to_list() == list(range(1, len(order) + 1))
    assert set(ranked(table, only_significant=True)["is_significant"]) == {True}


def test_a_latent_of_one_side_alone_ranks_first_by_fisher_where_it_may_be_picked(data):
    pooled, y = data
    outcomes = Outcomes(y, n_shuffles=0, n_resamples=0)
    found = {"1": moments_of(pooled["1.resid_post"], outcomes)}
    assert top_overall(latent_table(found, min_active=4), "fisher")["latent"].item() == 3
    assert top_overall(latent_table(found, min_active=5), "fisher")["latent"].item() != 3


def test_coefficients_are_what_they_are_called_and_point_away_from_failure(data, table):
    pooled, y = data
    chosen = table.filter(
        ((pl.col("hook_point") == "0.resid_post") & (pl.col("latent") == 0))
        | ((pl.col("hook_point") == "1.resid_post") & (pl.col("latent") == 1))
    )
    x = [pooled["0.resid_post"][:, 0], pooled["1.resid_post"][:, 1]]
    sign = np.array([1, -1])
    expected = {
        "positive": [v[y > 0].mean() for v in x],
        "active": [v[v > 0].mean() for v in x],
        "difference": [abs(v[y == 1].mean() - v[y == 0].mean()) for v in x],
    }
    for how, values in expected.items():
        found = with_coefficients(chosen, how, scale=2.0)["coefficient"].to_numpy()
        np.testing.assert_allclose(found, 2 * sign * values, rtol=1e-9)
    quantiles = with_coefficients(chosen, "quantile")["coefficient"].to_numpy()
    exact = [np.quantile(v[(y == 1) & (v > 0)], 0.9, method="lower") for v in x]
    np.testing.assert_allclose(quantiles, sign * exact, rtol=0.021)


def test_controls_are_as_frequent_and_long_as_what_they_stand_beside():
    random = np.random.default_rng(0)
    share = np.tile([0.1, 0.7], 30)
    norms = np.repeat([1.0, 3.0], 30) * random.uniform(0.98, 1.02, 60)
    pooled = (random.random((400, 60)) < share) * random.gamma(2.0, size=(400, 60))
    y = (random.random(400) < 0.5).astype(float)
    table = latent_table({"0": moments_of(pooled, Outcomes(y, n_shuffles=0, n_resamples=0))})
    chosen = table.filter(pl.col("latent").is_in([0, 31]))
    controls = random_controls(table, chosen, {"0": norms}, seed=1, n=4)
    assert controls.equals(random_controls(table, chosen, {"0": norms}, seed=1, n=4))
    assert not controls.equals(random_controls(table, chosen, {"0": norms}, seed=2, n=4))
    assert len(controls) == controls["latent"].n_unique() == 8
    assert not set(controls["latent"]) & {0, 31}
    for wanted in (0, 31):
        own = controls.filter(pl.col("control_of") == wanted)["latent"].to_numpy()
        np.testing.assert_array_equal(share[own], share[wanted])
        assert (np.abs(np.log(norms[own] / norms[wanted])) < 0.1).all()


def test_decoders_of_one_norm_are_matched_by_frequency_alone(table):
    norms = {point: np.ones(16) for point in ("0.resid_post", "1.resid_post")}
    controls = random_controls(table, top_per_layer(table), norms, seed=0, n=2)
    assert len(controls) == 4


def test_what_cannot_be_chosen_is_said_so(table):
    best, norms = top_per_layer(table), {"0.resid_post": np.ones(16), "1.resid_post": np.ones(16)}
    with pytest.raises(ConfigError, match="has 13 tested latents"):
        random_controls(table, best, norms, seed=0, n=20)
    with pytest.raises(ConfigError, match="Norms are needed"):
        random_controls(table, best, {}, seed=0)
    with pytest.raises(ConfigError, match="norm 0"):
        random_controls(table, best, {point: np.zeros(16) for point in norms}, seed=0)
    with pytest.raises(ConfigError, match="No latent is chosen"):
        random_controls(table, best.head(0), norms, seed=0)
    with pytest.raises(ConfigError, match="no hook point"):
        latent_table({})
