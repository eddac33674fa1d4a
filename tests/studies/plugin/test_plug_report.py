"""What the report says of a run whose classifiers' answers are made up."""

import numpy as np
import polars as pl
import pytest
from made_up_run import N_GROUPS, N_LAYERS, SET, N, made_up_config, made_up_run

from fluoroscope.core.sink import SILENT
from fluoroscope.studies.plugin.report import write_report
from fluoroscope.studies.plugin.report_accuracy import differences_table
from fluoroscope.studies.plugin.report_findings import load_findings
from fluoroscope.studies.plugin.report_layers import outdone, two_components
from fluoroscope.studies.plugin.report_verdict import UNTAUGHT, caveats, headline

GOOD = {"faithful-02": 0.95, "base": 0.7, "random_layer-02": 0.7}
BOTH = {"faithful-02": 0.9, "base": 0.7, "linear": 0.7, "random_layer-02": 0.7,
        "permuted_layer-02": 0.7}  # fmt: skip


@pytest.fixture(autouse=True)
def few_flips(monkeypatch):
    monkeypatch.setattr("fluoroscope.interventions.replies.comparing.N_FLIPS", 999)


def found_of(folder, right, **changes):
    config = made_up_config(**changes)
    return load_findings(made_up_run(folder, config, right), config)


def words(found):
    return " ".join(headline(found, found.sets[0]))


def test_a_layer_that_beats_its_controls_is_worth_something(tmp_path):
    found = found_of(tmp_path, BOTH, beside=[*UNTAUGHT, "base", "linear"])
    said = words(found)
    assert "**beat** random_layer, layer 2" in said
    worth = (
        "what the layer learnt is worth something here**, beside random_layer and permuted_layer"
    )
    assert worth in said
    assert f"of {N} test examples" in said


def test_one_untaught_control_does_not_decide(tmp_path):
    found = found_of(tmp_path, GOOD)
    assert "**beat** base" in words(found)
    assert "worth anything here**: permuted_layer was not trained beside it." in words(found)
    said = " ".join(caveats(found))
    assert "**permuted_layer was not trained beside it** (add permuted_layer to `beside`)" in said
    assert "is held against random_layer alone" in said


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"random_layer-02": 0.9},
         "random_layer, without what it learnt, does as well, as far as can be told."),
        ({"random_layer-02": 0.9, "permuted_layer-02": 1.0},
         "does as well, as far as can be told; permuted_layer, without what it learnt, does "
         "better."),
        ({"base": 1.0, "linear": 1.0}, "base and linear, without any layer, do better."),
    ],
)  # fmt: skip
def test_a_layer_that_is_not_above_all_controls_is_not_shown_to_be_worth_anything(
    tmp_path, changed, why
):
    said = words(found_of(tmp_path, {**BOTH, **changed}, beside=[*UNTAUGHT, "base", "linear"]))
    assert "not shown that what the layer learnt is worth anything here**: " in said
    assert why in said


def test_more_to_train_may_be_all_that_beat_the_encoder(tmp_path):
    right = {"faithful-02": 0.9, "base": 0.7, "linear": 0.9}
    said = words(found_of(tmp_path, right, beside=["base", "linear"]))
    assert "may come from more to train: it did not beat linear" in said


def test_a_layer_that_harms_is_said_to(tmp_path):
    said = words(found_of(tmp_path, {**GOOD, "faithful-02": 0.5}))
    assert "**was worse than** base" in said
    assert "beat** base" not in said


def test_what_was_not_trained_beside_it_is_said(tmp_path):
    said = " ".join(caveats(found_of(tmp_path, {"faithful-02": 0.9}, beside=[], seeds=1)))
    assert "the encoder alone, random_layer and permuted_layer were not trained beside it" in said
    assert "One training each" in said
    whole = found_of(tmp_path / "whole", BOTH, beside=[*UNTAUGHT, "base"])
    assert not any("not trained" in one for one in caveats(whole))


def test_the_plan_s_own_sides_are_said_to_be_so(tmp_path):
    said = " ".join(caveats(found_of(tmp_path, GOOD, split="paper")))
    assert "texts may stand on two sides" in said
    assert "CoLA" not in said


def test_an_encoder_alone_lacks_no_control(tmp_path):
    found = found_of(tmp_path, {"base": 0.9}, mode="base", beside=[], n_layers=0)
    assert not any("not trained" in one for one in caveats(found))
    assert words(found).startswith(f"**{SET}**: *base* gets **0.8")


def test_q_is_over_all_differences_of_the_run(tmp_path):
    found = found_of(tmp_path, {**GOOD, "base": 0.92})
    table = differences_table(found)
    less, more = sorted(table["p"])
    assert sorted(table["q"]) == pytest.approx([min(2 * less, more), more])
    assert table["n_groups"].to_list() == [N_GROUPS] * 2
    own, other = (found.sets[0].judged[key].right for key in ("faithful-02", "base"))
    assert table["difference"][0] == pytest.approx(own.mean() - other.mean())


def test_predictions_are_matched_by_their_ids(tmp_path):
    config = made_up_config()
    run = made_up_run(tmp_path, config, GOOD)
    before = load_findings(run, config)
    path = tmp_path / "train" / "predictions.parquet"
    pl.read_parquet(path).sample(fraction=1, shuffle=True, seed=1).write_parquet(path)
    after = load_findings(run, config)
    for key, judged in before.sets[0].judged.items():
        assert (after.sets[0].judged[key].predicted == judged.predicted).all()
    scores = pl.read_parquet(tmp_path / "train" / "scores.parquet").filter(arm="faithful")
    assert scores["accuracy"].to_list() == pytest.approx(
        before.sets[0].judged["faithful-02"].right.mean(axis=1).tolist()
    )


def test_layers_are_ranked_by_how_many_they_outdo():
    found = outdone(np.array([0.1, np.nan, 0.3, 0.3]))
    assert found[[0, 2, 3]].tolist() == [0, 1.5, 1.5]
    assert np.isnan(found[1])


def test_views_are_the_first_two_components_of_unit_rows():
    states = np.random.default_rng(0).normal(size=(30, 5)) + 2
    points, shares = two_components(states)
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(unit.T))[::-1]
    assert points.var(axis=0, ddof=1) == pytest.approx(values[:2])
    assert shares == pytest.approx(values[:2] / values.sum())
    assert two_components(3 * states)[0] == pytest.approx(points)


def test_a_whole_report_with_every_layer_trained(tmp_path, no_pictures):
    layers = {f"faithful-{layer:02d}": 0.6 + 0.1 * layer for layer in range(N_LAYERS)}
    right = {**GOOD, **layers, "linear": 0.8}
    config = made_up_config(
        mode="pifi_ilm", beside=["base", "random_layer", "linear", "every_layer"]
    )
    parts = ["matched" if i % 4 else "mismatched" for i in range(N)]
    run = made_up_run(tmp_path, config, right, parts)
    write_report(run, config, SILENT)
    page = (tmp_path / "report.html").read_text()
    for title in (
        "What the layer is worth", "Accuracy by data set and arm", "What each control takes away",
        "Every layer trained", "The choice of a layer", "What the layers read and make",
        "Trainings", "What was learnt and judged",
    ):  # fmt: skip
        assert title in page
    accuracy = pl.read_csv(tmp_path / "tables" / "accuracy.csv")
    assert {"test", "test, matched", "test, mismatched"} == set(accuracy["judged_on"])
    matched = accuracy.filter(judged_on="test, matched")
    assert matched["n"].to_list() == [N - N // 4] * 4
    agreement = pl.read_csv(tmp_path / "tables" / "agreement.csv")
    random = agreement.filter(method="random").row(0, named=True)
    assert random["accuracy"] == pytest.approx(0.75, abs=0.05)
    assert agreement.filter(method="last")["regret"].item() == 0.0
    assert "reading the texts 7 s" in page
    assert "ILM 2.5 s" in page
    assert "texts 3.5 s" in page
    assert "ILM takes layer 2 at a depth bias of 0.3; at 0 it would take layer 3" in page
    ended = pl.read_csv(tmp_path / "tables" / "trainings.csv")
    assert ended["is_stopped_early"].all()


def test_a_run_without_a_choice_has_no_word_of_one(tmp_path, no_pictures):
    config = made_up_config(mode="pifi", layer=2)
    write_report(made_up_run(tmp_path, config, GOOD), config, SILENT)
    page = (tmp_path / "report.html").read_text()
    assert "The choice of a layer" not in page
    assert "(as set)" in page
