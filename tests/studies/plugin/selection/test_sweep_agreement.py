"""Agreement of scores with a sweep, by hand, by scipy, and by simulation."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.plugin.selection.sweep_agreement import kendall_tau, sweep_agreement


def rows_of(table) -> dict[str, dict[str, float]]:
    return {row["method"]: row for row in table.to_dicts()}


def test_tau_is_scipys_with_equals_on_both_sides():
    random = np.random.default_rng(0)
    scores = random.integers(4, size=12).astype(float)
    others = random.integers(5, size=(20, 12)).astype(float)
    expected = [kendalltau(scores, row).statistic for row in others]
    np.testing.assert_allclose(kendall_tau(scores, others), expected)


def test_tau_of_a_constant_is_not_a_number():
    assert np.isnan(kendall_tau(np.ones(4), np.arange(4.0)[None])).all()


def test_regret_and_baselines_are_those_known_by_hand():
    accuracy = np.array([[0.80], [0.90], [0.86], [0.84]])
    table = sweep_agreement(accuracy, {"ilm": np.array([4.0, 3.0, 2.0, 1.0])}, 0, choices={"x": 1})
    rows = rows_of(table)
    assert rows["ilm"]["layer"] == 0
    assert rows["ilm"]["regret"] == pytest.approx(0.10)
    assert rows["ilm"]["tau"] == pytest.approx(kendalltau([4, 3, 2, 1], accuracy[:, 0]).statistic)
    assert rows["x"]["regret"] == pytest.approx(0.0)
    assert rows["last"]["regret"] == pytest.approx(0.06)
    assert rows["middle"]["regret"] == pytest.approx(0.04)
    assert rows["random"]["regret"] == pytest.approx(0.05)
    assert rows["random"]["layer"] is None
    # One training of each layer and no test samples: nothing says how sure this is.
    assert rows["ilm"]["regret_low"] is rows["ilm"]["tau_low"] is None
    assert rows["ilm"]["gap_recovered"] is None


def simulated(means: np.ndarray, n: int, n_seeds: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.random((len(means), n_seeds, n)) < means[:, None, None]


def test_a_gap_is_recovered_only_where_it_is_known():
    means = np.array([0.60, 0.90, 0.75, 0.70])
    scores = {"good": np.array([0.0, 3.0, 1.0, 2.0]), "fair": np.array([0.0, 1.0, 2.0, 0.5])}
    is_right = simulated(means, 1000, 3, 0)
    accuracy = is_right.mean(axis=2)
    rows = rows_of(sweep_agreement(accuracy, scores, 0, is_right=is_right))
    assert rows["good"]["gap_recovered"] == pytest.approx(1.0)
    assert rows["last"]["gap_recovered"] == pytest.approx(0.0)
    mean = accuracy.mean(axis=1)
    expected = (mean[2] - mean[3]) / (mean[1] - mean[3])
    assert rows["fair"]["gap_recovered"] == pytest.approx(expected)
    noise = simulated(np.full(4, 0.8), 100, 3, 1)
    unknown = rows_of(sweep_agreement(noise.mean(axis=2), scores, 0, is_right=noise))
    assert {row["gap_recovered"] for row in unknown.values()} == {None}


def test_the_interval_of_a_regret_between_fixed_layers_covers_it():
    # Far apart, so that the best layer is known: intervals are those of a difference.
    means = np.array([0.5, 0.9, 0.6])
    hits = 0
    for seed in range(60):
        is_right = simulated(means, 150, 1, seed)
        table = sweep_agreement(
            is_right.mean(axis=2),
            {"it": np.array([0.0, 1.0, 2.0])},
            seed,
            is_right=is_right,
            n_resamples=300,
        )
        row = rows_of(table)["it"]
        hits += row["regret_low"] <= 0.3 <= row["regret_high"]
    assert hits >= 51


def test_where_all_layers_are_alike_the_crossed_regret_is_about_0_and_the_plain_one_is_not():
    scores = {"it": np.arange(8.0)}
    plain, crossed = [], []
    for seed in range(40):
        is_right = simulated(np.full(8, 0.8), 200, 1, seed)
        accuracy = is_right.mean(axis=2)
        table = sweep_agreement(accuracy, scores, seed, is_right=is_right, n_resamples=10)
        row = rows_of(table)["it"]
        plain.append(row["regret"])
        crossed.append(row["regret_crossed"])
    error = np.std(crossed) / 40**0.5
    assert abs(np.mean(crossed)) < 3 * error
    assert np.mean(plain) > 0.02


def test_lucky_seeds_of_equal_layers_leave_no_crossed_regret():
    # Seeds differ by far more than samples do: halves that share them would all be positive.
    crossed, of_one = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        chance = 0.7 + 0.05 * random.normal(size=(8, 3, 1))
        is_right = random.random((8, 3, 200)) < chance
        for kept, found in ((is_right, crossed), (is_right[:, :1], of_one)):
            table = sweep_agreement(
                kept.mean(axis=2), {"it": np.arange(8.0)}, seed, is_right=kept, n_resamples=10
            )
            found.append(rows_of(table)["random"]["regret_crossed"])
    assert abs(np.mean(crossed)) < 3 * np.std(crossed) / 60**0.5
    assert np.mean(of_one) > 0.03


def test_samples_of_a_group_are_drawn_together():
    means = np.array([0.5, 0.9, 0.6])
    alone = simulated(means, 60, 1, 0)
    tenfold = np.repeat(alone, 10, axis=2)
    groups = [f"group {number // 10:02d}" for number in range(600)]
    scores = {"it": np.array([0.0, 1.0, 2.0])}
    tables = [
        sweep_agreement(one.mean(axis=2), scores, 0, is_right=one, groups=known)
        for one, known in ((alone, None), (tenfold, groups), (tenfold, None))
    ]
    few, grouped, split = (rows_of(table)["it"] for table in tables)
    assert grouped["regret_low"] == pytest.approx(few["regret_low"])
    assert grouped["regret_crossed"] == pytest.approx(few["regret_crossed"])
    width = grouped["regret_high"] - grouped["regret_low"]
    assert width == pytest.approx((split["regret_high"] - split["regret_low"]) * 10**0.5, rel=0.2)


def test_few_seeds_are_spread_out():
    # Ten groups alike of ten samples; the seeds' differences are 0.7 and 0.1.
    is_right = np.zeros((2, 2, 10, 10), dtype=bool)
    is_right[1, 0, :, :7] = is_right[1, 1, :, :1] = True
    is_right = is_right.reshape(2, 2, 100)
    groups = [str(number // 10) for number in range(100)]
    scores = {"it": np.array([1.0, 0.0])}
    table = sweep_agreement(is_right.mean(axis=2), scores, 0, is_right=is_right, groups=groups)
    row = rows_of(table)["it"]
    assert row["regret"] == pytest.approx(0.4)
    assert row["regret_low"] == pytest.approx(0.4 - 2**0.5 * 0.3)
    assert row["regret_high"] == pytest.approx(0.4 + 2**0.5 * 0.3)


def test_the_regret_of_the_best_layer_seen_has_no_ends_and_says_why():
    is_right = simulated(np.array([0.6, 0.8]), 100, 2, 0)
    scores = {"right": np.array([0.0, 1.0]), "wrong": np.array([1.0, 0.0])}
    rows = rows_of(sweep_agreement(is_right.mean(axis=2), scores, 0, is_right=is_right))
    right, wrong = rows["right"], rows["wrong"]
    assert right["regret"] == 0.0
    assert right["regret_low"] is right["regret_high"] is None
    assert "0 by construction" in right["note"]
    assert wrong["note"] is None
    assert wrong["regret_low"] < wrong["regret"] < wrong["regret_high"]


def test_seeds_are_the_units_where_no_samples_are_given():
    random = np.random.default_rng(0)
    accuracy = np.array([0.7, 0.8, 0.9])[:, None] + 0.01 * random.normal(size=(3, 12))
    row = rows_of(sweep_agreement(accuracy, {"it": np.array([1.0, 3.0, 2.0])}, 0))["it"]
    assert row["regret_low"] < row["regret"] < row["regret_high"]
    assert row["regret_high"] - row["regret_low"] == pytest.approx(0.016, abs=0.008)


def test_layers_without_a_score_are_left_out_of_tau_and_never_chosen():
    accuracy = np.array([[0.7], [0.9], [0.8], [0.6]])
    scores = {"it": np.array([1.0, np.nan, 2.0, -np.inf])}
    row = rows_of(sweep_agreement(accuracy, scores, 0))["it"]
    assert row["layer"] == 2
    assert row["tau"] == pytest.approx(1.0)


def test_shapes_that_do_not_fit_are_refused():
    accuracy = np.full((3, 2), 0.5)
    with pytest.raises(ConfigError, match="must be 3"):
        sweep_agreement(accuracy, {"it": np.ones(2)}, 0)
    with pytest.raises(ConfigError, match="0 to 2"):
        sweep_agreement(accuracy, {}, 0, choices={"x": -1})
    is_right = np.ones((3, 2, 9), dtype=bool)
    with pytest.raises(ConfigError, match="Each of 9 test samples"):
        sweep_agreement(accuracy, {}, 0, is_right=is_right, groups=["a"])
