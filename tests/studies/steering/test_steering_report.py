"""What the report makes of a run's tables: gains, caveats by rule, choices, matrices."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_up_findings import (
    BETTER,
    OTHER,
    RECIPES,
    SAME,
    SAMPLES,
    TASK,
    UNSTEERED,
    findings_of,
    replies,
)

from fluoroscope.interventions.replies.comparing import compare, shift_of
from fluoroscope.runs.report import Report
from fluoroscope.steps.replies_table import replies_frame
from fluoroscope.studies.steering.report_findings import Findings, gain_towards
from fluoroscope.studies.steering.report_latents import picks_table
from fluoroscope.studies.steering.report_methods import (
    add_methods,
    add_other_tasks,
    controls_table,
    methods_table,
    other_tasks_table,
)
from fluoroscope.studies.steering.report_samples import add_samples
from fluoroscope.studies.steering.report_strength import (
    add_ablations,
    add_curve,
    add_strength,
    curve_table,
)
from fluoroscope.studies.steering.report_sweep import score_by_strength, sweep_table
from fluoroscope.studies.steering.report_truth import truth_gates
from fluoroscope.studies.steering.report_verdict import add_verdict, caveats, headline
from fluoroscope.studies.steering.shown_samples import choose_samples
from fluoroscope.studies.steering.transfer import (
    picks_over_seeds,
    seed_groups,
    seeds_table,
    transfer_table,
)


@pytest.fixture(autouse=True)
def few_flips(monkeypatch):
    """No test here looks at a p."""
    monkeypatch.setattr("fluoroscope.interventions.replies.comparing.N_FLIPS", 19)


def test_a_gain_towards_a_score_is_the_shrinkage_of_the_mean_distance_of_parts():
    before, after = np.array([0.1, 0.1, 0.5, 0.5]), np.array([0.6, 0.6, 0.5, 0.5])
    found = gain_towards(after, before, ["a", "a", "b", "b"], np.arange(4), 0.5, 0)
    # Part a goes from 0.4 away to 0.1 away, part b stays.
    assert found.value == pytest.approx((0.4 - 0.1) / 2)
    assert np.isnan(found.low)


def test_one_part_cannot_make_up_for_another():
    n = 40
    before = np.full(n, 0.5)
    after = np.where(np.arange(n) % 2, 0.9, 0.1)
    labels = ["odd" if i % 2 else "even" for i in range(n)]
    found = gain_towards(after, before, labels, np.arange(n) // 2, 0.5, 0)
    assert found.value == pytest.approx(-0.4)
    assert found.high < 0


def test_swapping_two_recipes_turns_the_gain_around():
    random = np.random.default_rng(0)
    one, two = random.random(50), random.random(50)
    groups, labels = np.arange(50) // 2, ["a"] * 25 + ["b"] * 25
    ahead = gain_towards(one, two, labels, groups, 0.5, 3)
    behind = gain_towards(two, one, labels, groups, 0.5, 3)
    np.testing.assert_allclose(ahead, [-behind.value, -behind.high, -behind.low])


def test_recipes_are_told_apart_by_the_part_they_play():
    found = findings_of()
    assert list(found.roles.values()) == [
        "main", "method", "control", "control", "ablation", "curve",
    ]  # fmt: skip
    assert found.draws == {"random-latents": ["random-latents 1", "random-latents 2"]}
    assert found.pattern("random-latents") == "corrsteer-a"


def test_the_gain_is_the_paired_difference_where_more_is_better():
    found = findings_of()
    assert found.gain("corrsteer-a").value == pytest.approx((30 - 2) / 60)
    assert found.gain("corrsteer-a") == found.gain("corrsteer-a", "caa")
    table = methods_table(found)
    main = table.row(0, named=True)
    assert main["score"] == pytest.approx(48 / 60)
    assert main["stereotype_ratio"] == pytest.approx(12 / 60)
    assert main["stereotype_ratio_low"] == pytest.approx(1 - main["score_high"])
    assert np.isnan(main["main_ahead"])
    # Of draws of controls no q is told.
    assert table.filter(pl.col("role") == "control")["q"].is_nan().all()


def test_the_headline_says_score_difference_and_interval():
    said = " ".join(headline(findings_of()))
    assert "from 0.333 to 0.800: **+0.467 [" in said
    assert "60 test samples in 60 groups" in said
    assert "2 draws" in said
    assert "stereotype ratio" in said


def test_controls_of_another_method_say_what_they_are_as_strong_as():
    said = " ".join(headline(findings_of()))
    assert "*random-latents*, as strong as it, gains" in said
    found = findings_of(said={"caa": BETTER, "random-latents 2": BETTER})
    first, second, *rest = found.config.all_recipes
    found = replace(found, config=found.config.model_copy(
        update={"all_recipes": [second, first, *rest]}
    ))  # fmt: skip
    assert found.main == "caa"
    assert "*random-latents*, as strong as *corrsteer-a*, gains" in " ".join(headline(found))
    (told,) = [one for one in caveats(found) if "Controls do as well" in one]
    assert told.endswith("They are as strong as corrsteer-a, not as caa.")
    weak = replace(found, results=found.results.with_columns(
        strength=pl.when(pl.col("recipe") == "corrsteer-a").then(0.0).otherwise("strength")
    ))  # fmt: skip
    assert "matched to *corrsteer-a* and at strength 1, gains" in " ".join(headline(weak))


def test_a_run_without_a_weakness_has_no_caveat():
    other = {"corrsteer-a": SAME}
    found = findings_of(other=other)
    said = [one for one in caveats(found) if "cannot be told" not in one]
    assert said == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"said": {"random-latents 2": BETTER}}, "1 of 2 draws of random-latents"),
        ({"said": {"corrsteer-a": SAME}, "strengths": {"corrsteer-a": 0.0}}, "strength 0"),
        ({"strengths": {"caa": 0.0}}, "judged at strength 0, as nothing helped: caa"),
        ({"said": {"corrsteer-a": SAME}}, "gains anything **cannot be told**"),
        ({"said": {"corrsteer-a": replies([0.0] * 60)}}, "**does harm**"),
        ({"other": {"corrsteer-a": replies([0.0] * 60)}}, "Lost by more than 0.02: organism-facts"),
        ({"picks": [("corrsteer-a", "0.resid_post", 3, 0.4)]}, "**may be chance**"),
        ({"picks": [("corrsteer-a", "0.resid_post", 3, None)]}, "0.resid_post:3"),
    ],
)
def test_what_speaks_against_a_result_is_said_by_rule(changes, words):
    assert any(words in one for one in caveats(findings_of(**changes)))


def test_a_gain_by_form_alone_is_called_one():
    unread = replies([0.0] * 40 + [1.0] * 20, readable=[False] * 40 + [True] * 20)
    found = findings_of()
    row = compare(unread, BETTER, [one.group_id for one in SAMPLES]).row()
    is_main = (pl.col("recipe") == "corrsteer-a") & (pl.col("task") == TASK) & ~pl.col("is_swept")
    n = pl.when(is_main).then(row["n_better_by_form"]).otherwise(pl.col("n_better_by_form"))
    changed = Findings(**{**vars_of(found), "results": found.results.with_columns(
        n.alias("n_better_by_form"))})  # fmt: skip
    assert any("30 of the 30 replies" in one for one in caveats(changed))


def vars_of(found):
    names = ("config", "results", "parts", "replies", "chosen", "tried", "picks", "tasks", "cards")
    return {name: getattr(found, name) for name in (*names, "tokens")}


def test_overshooting_an_aim_is_said():
    found = findings_of(said={"corrsteer-a": replies([1.0] * 60)}, towards=0.5)
    assert any("Further from 0.5 than before" in one for one in caveats(found))
    assert "the aim is 0.5" in " ".join(headline(found))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.01, 0.02, "within"), (0.03, 0.1, "beyond"), (-0.1, -0.03, "beyond"),
     (-0.1, 0.1, "open"), (None, None, "open"), (-0.03, 0.01, "open")],
)  # fmt: skip
def test_a_shift_is_within_beyond_or_open(low, high, said):
    assert shift_of(low, high, 0.02) == said


def test_a_shift_is_that_of_the_comparison_it_is_read_from():
    groups = [one.group_id for one in SAMPLES]
    for after in (SAME, BETTER, replies([0.0] * 60)):
        found = compare(UNSTEERED, after, groups)
        assert shift_of(found.difference.low, found.difference.high, 0.02) == found.shift(0.02)


def test_controls_are_told_by_mean_and_range_over_their_draws():
    found = findings_of(said={"random-latents 2": BETTER})
    (row,) = controls_table(found).to_dicts()
    assert (row["draws"], row["as_good"], row["matched_to"]) == (2, 1, "corrsteer-a")
    assert row["least_score"] == pytest.approx(20 / 60)
    assert row["mean_gain"] == pytest.approx((0 + 28 / 60) / 2)
    assert row["frequency"] is row["frequency_of_picks"] is None
    names = ["corrsteer-a", "random-latents 1", "random-latents 2"]
    picks = pl.DataFrame({"recipe": names, "frequency": [0.5, 0.25, 0.75]})
    (row,) = controls_table(replace(found, picks=picks)).to_dicts()
    assert (row["frequency"], row["frequency_of_picks"]) == (0.5, 0.5)


def test_other_tasks_have_a_row_for_each_recipe_and_task():
    found = findings_of(other={"caa": replies([0.0] * 60)})
    table = other_tasks_table(found, [OTHER], 0.02)
    assert table["recipe"].to_list() == list(RECIPES[:4])
    assert table.filter(pl.col("recipe") == "caa")["shift"].item() == "beyond"


def test_samples_are_chosen_by_kind_and_seed_and_one_of_a_group():
    before = replies_frame(SAMPLES, UNSTEERED)
    after = replies_frame(SAMPLES, BETTER)
    chosen = choose_samples(before, after, seed=0)
    assert {why: len(ids) for why, ids in chosen.items()} == {
        "better": 3, "worse": 2, "changed alike": 0, "unchanged": 3,
    }  # fmt: skip
    assert set(chosen["worse"]) == {"s58", "s59"}
    assert chosen == choose_samples(before, after, seed=0)
    assert chosen["better"] != choose_samples(before, after, seed=1)["better"]
    alike = after.with_columns(group=pl.lit("one"))
    few = choose_samples(before.with_columns(group=pl.lit("one")), alike, seed=0)
    assert [len(ids) for ids in few.values()] == [1, 1, 0, 1]


def test_the_sweep_begins_at_the_unsteered_model_and_marks_its_front():
    table = sweep_table(findings_of())
    assert table["strength"].to_list() == [0.0, 1.0, 2.0]
    assert table["gain"].to_list() == pytest.approx([0.0, 28 / 60, 0.0])
    # All cost the same here, so the one that gains is the front.
    assert table["on_front_kl"].to_list() == [False, True, False]


def test_where_a_score_is_aimed_at_strengths_are_told_by_part():
    found = findings_of(towards=0.5)
    scores = score_by_strength(found)
    assert sorted(set(scores["part"])) == ["is_biased no", "is_biased yes"]
    gain = dict(sweep_table(found).select("strength", "gain").iter_rows())
    assert gain[1.0] == pytest.approx(found.gain("corrsteer-a").value)


def test_the_curve_counts_the_latents_that_are_the_final_ones():
    picks = [
        ("corrsteer-a", "0.resid_post", 3, 0.001),
        ("corrsteer-a", "1.resid_post", 5, 0.001),
        ("corrsteer-a, 8 samples", "0.resid_post", 3, 0.001),
        ("corrsteer-a, 8 samples", "1.resid_post", 6, 0.001),
    ]
    (row,) = curve_table(findings_of(picks=picks)).to_dicts()
    assert (row["samples"], row["n_parts"], row["n_same"]) == (8, 2, 1)


def test_a_pick_that_no_resample_puts_first_is_not_stable():
    picks = findings_of().picks
    table = pl.DataFrame(
        {"hook_point": ["0.resid_post"], "latent": [3], "n_active": [20], "frequency": [0.5],
         "frequency_success": [0.6], "frequency_failure": [0.4], "p_layer": [0.1],
         "p_all": [0.2], "is_significant": [True]}
    )  # fmt: skip
    stability = pl.DataFrame({"hook_point": ["0.resid_post"], "latent": [4], "share": [1.0]})
    assert picks_table(picks, table, stability)["stability"].to_list() == [0.0]
    assert "stability" not in picks_table(picks, table, None).columns


def test_gates_fail_where_random_latents_repair_or_too_few_baselines_do():
    found = findings_of()
    rows = [
        {"recipe": name, "biased after": 0.5, "others difference": 0.0, "loss of other": -0.0,
         "repairs_bias": name != "random-latents 1", "spares_others": True, "harms_nothing": True}
        for name in RECIPES
    ]  # fmt: skip
    gates = {gate.name: gate for gate in truth_gates(pl.DataFrame(rows), found)}
    assert gates["biased prompts, mean score"].passed
    assert not gates["baselines that repair, spare and harm nothing"].passed
    draws = gates["draws that repair the bias"]
    assert (draws.value, draws.passed) == (1, False)


def test_the_transfer_table_has_each_run_on_each_of_its_tasks():
    found = {"one": findings_of(), "two": findings_of(other={"corrsteer-a": replies([0.0] * 60)})}
    table = transfer_table(found)
    assert table.select("run", "judged_on").rows() == [
        ("one", TASK), ("one", OTHER), ("two", TASK), ("two", OTHER),
    ]  # fmt: skip
    assert table["difference"].to_list() == pytest.approx([28 / 60, 0.0, 28 / 60, -20 / 60])


def test_runs_that_differ_in_their_seed_alone_are_one_experiment():
    other = findings_of(seed=2, towards=0.5)
    found = {"a": findings_of(), "b": findings_of(seed=1), "c": other, "d": findings_of(seed=1)}
    assert seed_groups(found) == [["a", "b"]]


def test_numbers_over_seeds_are_mean_and_t_interval():
    worse = replies([0.0] * 60)
    found = {"a": findings_of(), "b": findings_of(seed=1, said={"corrsteer-a": worse})}
    row = seeds_table(found).row(0, named=True)
    gains = np.array([28 / 60, -20 / 60])
    assert row["gain"] == pytest.approx(gains.mean())
    reach = 12.7062047 * gains.std(ddof=1) / 2**0.5
    assert row["gain_high"] == pytest.approx(gains.mean() + reach)
    assert row["gain_sd"] == pytest.approx(gains.std(ddof=1))
    assert picks_over_seeds(found)["n_runs"].to_list() == [2]


@pytest.mark.parametrize("towards", [None, 0.5])
def test_every_section_is_written_with_names_of_its_own(towards, tmp_path):
    found, report = findings_of(towards=towards), Report("Steering")
    for add in (add_verdict, add_methods, add_other_tasks, add_samples, add_strength, add_curve,
                add_ablations):  # fmt: skip
        add(report, found)
    page = report.page()
    assert "Methods beside each other" in page
    assert "What each setting does" in page
