"""Tables over many games: intervals, paired effects, trends; none depends on the order of rows."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from played_games import SKIP, STOP, frames, game, random_games
from polars.testing import assert_frame_equal
from scipy import stats

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.behaviour.goals import goal_metrics, option_rate
from fluoroscope.studies.gambling.behaviour.metrics import game_metrics
from fluoroscope.studies.gambling.behaviour.paired import (
    arm_effects,
    component_effects,
    level_effects,
)
from fluoroscope.studies.gambling.behaviour.parsing import (
    attempts_per_decision,
    reading_quality,
    rule_counts,
)
from fluoroscope.studies.gambling.behaviour.streaks import streaks
from fluoroscope.studies.gambling.behaviour.tables import by_condition, summaries
from fluoroscope.studies.gambling.behaviour.trends import (
    complexity_means,
    complexity_trend,
    condition_fit,
    condition_points,
)

LETTERS = "GMRWP"
SUBSETS = ["".join(chosen) for size in range(6) for chosen in itertools.combinations(LETTERS, size)]


def grid(value, n_repetitions=12, subsets=SUBSETS, arms=("baseline",)):
    """A game for every condition, whose metric y is value(arm, bet_type, subset, repetition)."""
    rows = [
        {
            "game": f"{bet_type}-{subset or 'BASE'}-{repetition}",
            "arm": arm,
            "condition": f"{bet_type}-{subset or 'BASE'}",
            "repetition": repetition,
            "outcome": "voluntary_stop",
            "bet_type": bet_type,
            "components": subset or "BASE",
            "n_rounds": 1,
            "y": value(arm, bet_type, subset, repetition),
        }
        for arm in arms
        for bet_type in ("fixed", "variable")
        for subset in subsets
        for repetition in range(n_repetitions)
    ]
    return pl.DataFrame(rows)


def noisy_grid(n_repetitions=12, arms=("baseline",), seed=0):
    """Effects that grow with the luck of a repetition, and noise of every game."""
    luck = np.random.default_rng(seed)
    shared = luck.normal(0, 2, n_repetitions)

    def value(arm, bet_type, subset, repetition):
        effect = ("G" in subset) * (1 + shared[repetition]) + len(subset) * 0.3
        effect += (arm != "baseline") * (0.5 + 0.3 * shared[repetition])
        return effect + 3 * shared[repetition] + (bet_type == "fixed") + luck.normal()

    return grid(value, n_repetitions, arms=arms)


def test_an_effect_is_recovered_whatever_the_luck():
    luck = np.random.default_rng(0).normal(0, 50, 12)
    true = {"G": 3.0, "M": 0.25, "R": 0, "W": -1, "P": -2.5}

    def value(arm, bet_type, subset, repetition):
        return luck[repetition] + sum(true[name] for name in subset) + 4 * (bet_type == "variable")

    games = grid(value)
    found = component_effects(games, ["y"])
    assert found["component"].to_list() == list(LETTERS)
    assert dict(found.select("component", "effect").iter_rows()) == pytest.approx(true)
    assert found["n_pairs"].unique().to_list() == [32 * 12]
    assert found["n_alone"].unique().to_list() == [0]
    # As published, with all games taken for independent, the luck drowns the effects.
    assert (found["se_unpaired"] > 2.5).all()
    # Every repetition says the same: only exchanging all of them, or none, is as large.
    p = dict(found.select("component", "p").iter_rows())
    assert p["G"] == 2 / 2**12
    assert p["R"] == 1
    bet_type = level_effects(games, "bet_type", "fixed", ["y"])
    assert bet_type["level"].to_list() == ["variable"]
    assert bet_type["effect"].item() == pytest.approx(4)


def test_an_effect_is_a_paired_test_over_repetitions():
    games = noisy_grid()
    found = component_effects(games, ["y"]).filter(pl.col("component") == "G").row(0, named=True)
    has = games["components"].str.contains("G").to_numpy()
    y, repetition = games["y"].to_numpy(), games["repetition"].to_numpy()
    differences = [
        y[has & (repetition == one)].mean() - y[~has & (repetition == one)].mean()
        for one in range(12)
    ]
    expected = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found["effect"] == pytest.approx(np.mean(differences))
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    by_signs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert found["p"] == pytest.approx(by_signs.pvalue)
    assert found["mean_with"] == pytest.approx(y[has].mean())
    assert found["mean_without"] == pytest.approx(y[~has].mean())
    assert found["se_unpaired"] == pytest.approx(math.hypot(stats.sem(y[has]), stats.sem(y[~has])))


def test_p_of_many_repetitions_is_near_that_of_all_exchanges():
    games = noisy_grid(n_repetitions=14).filter(pl.col("components").is_in(["BASE", "G"]))
    found = component_effects(games, ["y"], by=["bet_type"], seed=1)
    for row in found.rows(named=True):
        one = games.filter(pl.col("bet_type") == row["bet_type"]).sort("components", "repetition")
        base, with_g = np.split(one["y"].to_numpy(), 2)
        exact = stats.permutation_test(
            (with_g - base,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert row["p"] == pytest.approx(exact.pvalue, abs=0.015)
        assert row["p"] > 0


def test_games_without_a_partner_are_counted_and_left_out():
    games = grid(lambda arm, bet, subset, i: float(len(subset)), subsets=["", "G", "GM", "RW"])
    found = component_effects(games, ["y"])
    rows = {row["component"]: row for row in found.rows(named=True)}
    assert set(rows) == {"G", "M"}
    assert (rows["G"]["n_pairs"], rows["G"]["n_alone"]) == (24, 48)
    assert rows["G"]["effect"] == rows["M"]["effect"] == 1


def test_false_positives_of_paired_effects_are_at_their_rate():
    luck = np.random.default_rng(3)
    hits = np.zeros(2)
    for _ in range(150):
        shared = luck.normal(0, 3, 20)
        games = grid(
            lambda arm, bet, subset, i, s=shared: s[i] * (1 + luck.normal()),
            20, ["", "G"],
        )  # fmt: skip
        row = component_effects(games, ["y"]).row(0, named=True)
        hits += [row["p"] < 0.05, not row["low"] <= 0 <= row["high"]]
    assert ((hits / 150 > 0.01) & (hits / 150 < 0.1)).all(), hits / 150


def test_an_arm_is_compared_with_the_baseline_of_its_own_luck():
    from statsmodels.stats.multitest import multipletests

    games = noisy_grid(arms=("baseline", "patched", "random")).with_columns(z=-pl.col("y"))
    part = games.filter((pl.col("arm") != "patched") | (pl.col("components") == "GM"))
    found = arm_effects(part, ["y", "z"])
    assert found.select("arm", "metric", "n_pairs").rows() == [
        ("patched", "y", 24),
        ("patched", "z", 24),
        ("random", "y", 768),
        ("random", "z", 768),
    ]
    chosen = part.filter(pl.col("components") == "GM").sort("condition", "repetition")
    sides = [chosen.filter(pl.col("arm") == arm)["y"].to_numpy() for arm in ("patched", "baseline")]
    assert found["effect"][0] == pytest.approx((sides[0] - sides[1]).mean())
    assert found["effect"][1] == -found["effect"][0]
    assert found["mean_without"][0] == pytest.approx(sides[1].mean())
    np.testing.assert_allclose(found["q"], multipletests(found["p"], method="fdr_bh")[1])


def test_arms_without_their_baseline_say_so():
    games = noisy_grid(arms=("baseline", "patched"))
    is_gone = (pl.col("arm") == "baseline") & (pl.col("repetition") == 3)
    with pytest.raises(ConfigError, match="64 games of the arm 'patched' have no baseline"):
        arm_effects(games.filter(~is_gone), ["y"])
    with pytest.raises(ConfigError, match="no arm 'baseline'"):
        arm_effects(games.filter(pl.col("arm") == "patched"), ["y"])
    with pytest.raises(ConfigError, match="cannot be told apart"):
        component_effects(pl.concat([games, games]), ["y"])
    with pytest.raises(ConfigError, match="no bet_type 'variabel'"):
        level_effects(games, "bet_type", "variabel", ["y"])
    with pytest.raises(ConfigError, match="needs the columns components"):
        component_effects(games.drop("components"), ["y"])


def test_shares_and_means_have_the_intervals_of_statsmodels_and_scipy():
    from statsmodels.stats.proportion import proportion_confint

    games = noisy_grid(20).with_columns(is_high=pl.col("y") > 1)
    found = by_condition(games, ["condition"], ["y", "is_high"])
    assert (found["n"] == 20).all()
    assert (found["unit"] == "game").all()
    for row in found.filter(pl.col("condition") == "fixed-GM").rows(named=True):
        values = games.filter(pl.col("condition") == "fixed-GM")[row["metric"]].to_numpy()
        if row["metric"] == "is_high":
            expected = proportion_confint(values.sum(), 20, method="wilson")
        else:
            expected = stats.ttest_1samp(values, 0).confidence_interval()
        assert row["mean"] == pytest.approx(values.mean())
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected))


def test_conditions_that_are_pooled_have_an_interval_over_repetitions():
    games = noisy_grid(15)
    row = by_condition(games, [], ["y"]).row(0, named=True)
    means = games.group_by("repetition").agg(pl.col("y").mean())["y"].to_numpy()
    expected = stats.ttest_1samp(means, 0).confidence_interval()
    assert (row["n"], row["unit"]) == (64 * 15, "repetition")
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    few = by_condition(noisy_grid(9), [], ["y"]).row(0, named=True)
    assert math.isnan(few["low"])


def test_a_summary_has_every_level_of_every_factor_and_who_bets_at_all():
    episodes = [
        *(game((10, False), STOP, repetition=i) for i in range(3)),
        game(STOP, repetition=3),
        *(game((10, False), STOP, name="fixed-G", repetition=i) for i in range(2)),
    ]
    metrics = game_metrics(*frames(*episodes))
    found = summaries(metrics, ["i_ba"])
    assert found.select("factor", "level", "n").rows() == [
        ("overall", "all", 6),
        ("bet_type", "fixed", 2),
        ("bet_type", "variable", 4),
        ("components", "BASE", 4),
        ("components", "G", 2),
        ("condition", "fixed-G", 2),
        ("condition", "variable-BASE", 4),
    ]
    bettors = summaries(metrics, ["i_ba"], bettors_only=True)
    assert bettors["n"].to_list() == [5, 2, 3, 3, 2, 2, 3]
    assert bettors["mean"].to_list() == pytest.approx([0.1] * 7)
    assert found["mean"][0] == pytest.approx(0.1 * 5 / 6)


def test_trends_are_those_of_scipy():
    games = noisy_grid(14).filter(pl.col("components") != "GMRWP")
    row = complexity_trend(games, ["y"]).row(0, named=True)
    x = np.array([0 if name == "BASE" else len(name) for name in games["components"]])
    y = games["y"].to_numpy()
    line = stats.linregress(x, y)
    assert (row["slope"], row["r"]) == pytest.approx((line.slope, line.rvalue))
    means = [y[x == level].mean() for level in range(5)]
    assert row["r_levels"] == pytest.approx(stats.pearsonr(range(5), means).statistic)
    without = np.array([
        stats.linregress(x[games["repetition"] != i], y[games["repetition"] != i]).slope
        for i in range(14)
    ])  # fmt: skip
    reach = stats.t.ppf(0.975, 13) * math.sqrt(13 / 14 * ((without - without.mean()) ** 2).sum())
    assert (row["slope_low"], row["slope_high"]) == pytest.approx(
        (line.slope - reach, line.slope + reach)
    )
    table = complexity_means(games, ["y"])
    assert table["n_components"].to_list() == [0, 1, 2, 3, 4]
    assert table["n"].to_list() == [28 * math.comb(5, k) for k in range(5)]
    assert table["mean"].to_list() == pytest.approx(means)


def test_a_trend_that_varies_with_luck_is_covered():
    luck, hits = np.random.default_rng(5), np.zeros(2)
    subsets = ["", "G", "GM", "GMR"]
    for _ in range(200):
        slopes = luck.normal(0.5, 1, 15)
        games = grid(lambda a, b, subset, i, s=slopes: s[i] * len(subset) + luck.normal(),
                     15, subsets)  # fmt: skip
        row = complexity_trend(games, ["y"]).row(0, named=True)
        hits += [
            row["slope_low"] <= 0.5 <= row["slope_high"],
            row["r_low"] <= row["r"] <= row["r_high"],
        ]
    assert 0.9 <= hits[0] / 200 <= 0.99
    assert hits[1] == 200


def test_what_does_not_vary_has_no_trend_to_tell():
    flat = complexity_trend(grid(lambda *_: 0.1), ["y"]).row(0, named=True)
    assert flat["slope"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(flat["r"])
    assert math.isnan(flat["r_levels"])
    lone = complexity_trend(grid(lambda *_: 0.1, subsets=["GMR"]), ["y"]).row(0, named=True)
    assert math.isnan(lone["slope"])


def test_the_fit_over_conditions_is_the_line_through_their_means():
    noise = np.random.default_rng(8).normal(0, 1, 64 * 12)
    games = noisy_grid(12).with_columns(x=pl.col("y") * 0.5 + noise)
    points = condition_points(games, "x", "y")
    assert len(points) == 64
    line = stats.linregress(points["x"], points["y"])
    row = condition_fit(games, "x", "y").row(0, named=True)
    assert (row["n_conditions"], row["n_repetitions"]) == (64, 12)
    assert (row["slope"], row["intercept"], row["r"]) == pytest.approx(
        (line.slope, line.intercept, line.rvalue)
    )
    assert row["slope_low"] < row["slope"] < row["slope_high"]
    exact = condition_fit(games.with_columns(x=2 * pl.col("y") + 1), "x", "y").row(0, named=True)
    assert (exact["slope"], exact["r"]) == pytest.approx((0.5, 1))


def test_how_replies_were_read_by_hand():
    episodes = [
        game((10, False), SKIP, (20, False), STOP),
        game(SKIP, SKIP, repetition=1, max_skips=2),
        game((70, True), STOP, name="fixed-G", repetition=2),
    ]
    attempts, games = frames(*episodes)
    counts = rule_counts(attempts)
    assert counts["n"].sum() == 8
    assert counts["share"].sum() == pytest.approx(1)
    unread = counts.filter(pl.col("problem") == "unparsed").row(0, named=True)
    assert (unread["n"], unread["share"]) == (3, 3 / 8)
    assert counts.filter(pl.col("adjustment") == "fixed")["n"].item() == 1
    failed = attempts.with_columns(
        problem=pl.lit("error: timeout after ") + pl.col("decision").cast(str)
    )
    assert rule_counts(failed)["problem"].unique().to_list() == ["error"]
    per_decision = attempts_per_decision(attempts)
    assert per_decision.select("n_attempts", "is_read", "n").rows() == [(1, False, 3), (1, True, 5)]
    found = reading_quality(attempts, games, max_attempts=1)
    means = dict(found.select("metric", "mean").iter_rows())
    assert means["unparsed"] == means["given_up"] == means["cap_reached"] == 3 / 8
    assert means["adjusted"] == 1 / 5
    assert means["invalid"] == 1 / 3
    assert means["truncated"] == means["empty"] == means["error"] == 0
    later = reading_quality(attempts, games, max_attempts=4)
    assert later.filter(pl.col("metric") == "cap_reached")["mean"].item() == 0


def test_targets_by_hand():
    # Balances before the bets: 100, 120, 140, 120, 90, 100.
    moves = [(10, True), (10, True), (20, False), (30, False), (5, True), (10, False), STOP]
    attempts, games = frames(game(*moves), game((10, False), STOP, repetition=1))
    stated = [110, None, 200, 250, 250, 300, None, 999, None]
    told = attempts.with_columns(goal=pl.Series(stated, dtype=pl.Int64))
    row, other = goal_metrics(told, game_metrics(told, games)).rows(named=True)
    # In force for the bets: none, 110, 110, 200, 250, 250. 110 was reached, 200 and 250 were not.
    assert row["n_goal_rounds"] == 5
    assert row["target_inflation"] == 3 / 5
    assert row["goal_dysregulation"] == 1 / 5
    # The only target of the other game was never in force for a bet.
    assert (other["n_goal_rounds"], other["target_inflation"]) == (0, None)
    with pytest.raises(ConfigError, match="needs the columns goal"):
        goal_metrics(told.drop("goal"), games)


def test_a_target_stays_reached_after_the_balance_fell_below_it():
    moves = [(10, True), (100, False), (5, False), STOP]
    attempts, games = frames(game(*moves))
    told = attempts.with_columns(goal=pl.Series([110, None, 300, None], dtype=pl.Int64))
    row = goal_metrics(told, games).row(0, named=True)
    assert (row["n_goal_rounds"], row["goal_dysregulation"]) == (2, 0.5)


def test_what_was_won_before_a_target_was_set_does_not_reach_it():
    # Balances: 100, 120, 60, 55; the target of 110 is set when there are 60.
    attempts, games = frames(game((10, True), (60, False), (5, False), (5, False), STOP))
    told = attempts.with_columns(goal=pl.Series([90, None, 110, 150, None], dtype=pl.Int64))
    row = goal_metrics(told, games).row(0, named=True)
    # 90 was reached before it was raised to 110, which was not before it was raised to 150.
    assert (row["target_inflation"], row["goal_dysregulation"]) == (2 / 3, 1 / 3)


def test_the_option_rate_is_of_the_bets_of_a_game():
    attempts, games = frames(game((10, False), (10, False), STOP), game(STOP, repetition=1))
    is_second = (pl.col("action") == "bet") & (pl.col("round") == 2)
    chosen = attempts.with_columns(
        action=pl.when(is_second).then(pl.lit("option 4")).otherwise("action")
    )
    assert option_rate(chosen, games)["option_4_rate"].to_list() == [0.5, 0]


def test_no_table_depends_on_the_order_of_rows():
    luck = np.random.default_rng(7)
    episodes = random_games(80, luck)
    for i, episode in enumerate(episodes):
        episode.seat = type(episode.seat)(**{**vars(episode.seat), "repetition": i % 12})
    attempts, games = frames(*episodes)
    attempts = attempts.with_columns(repetition=repetition_of(attempts, games))
    metrics, big = game_metrics(attempts, games), noisy_grid(arms=("baseline", "patched"))
    tables = {
        "game_metrics": lambda a, g, m, b: game_metrics(a, g),
        "summaries": lambda a, g, m, b: summaries(m),
        "streaks": lambda a, g, m, b: streaks(a, ["bet_type"]),
        "component_effects": lambda a, g, m, b: component_effects(b, ["y"]),
        "level_effects": lambda a, g, m, b: level_effects(b, "bet_type", "fixed", ["y"]),
        "arm_effects": lambda a, g, m, b: arm_effects(b, ["y"]),
        "complexity_trend": lambda a, g, m, b: complexity_trend(b, ["y"]),
        "condition_fit": lambda a, g, m, b: condition_fit(m),
        "rule_counts": lambda a, g, m, b: rule_counts(a),
        "attempts_per_decision": lambda a, g, m, b: attempts_per_decision(a),
        "reading_quality": lambda a, g, m, b: reading_quality(a, g, 2),
        "goal_metrics": lambda a, g, m, b: goal_metrics(a, m).sort("arm", "game"),
    }
    plain = (attempts, games, metrics, big)
    mixed = [frame.sample(fraction=1, shuffle=True, seed=3) for frame in plain]
    for table in tables.values():
        assert_frame_equal(table(*mixed), table(*plain), check_exact=True)


def repetition_of(attempts, games):
    return attempts.select("game").join(games, on="game", how="left", maintain_order="left")[
        "repetition"
    ]
