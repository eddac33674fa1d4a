"""Whole runs of the connection study, small: what they leave, and that nothing changes it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_connection_study import TRAINING, run_small, small, step_bytes
from strikes import end_after_strikes

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.data.questions.base import question_set
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.spec import ConnectionSpec
from fluoroscope.studies.connection.steps.questions import check_edges_stay
from fluoroscope.studies.connection.study import ConnectionStudy

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return run_small(tmp_path_factory.mktemp("runs"))


def test_every_arm_and_seed_answers_every_question_once(done):
    answers = pl.read_parquet(done.step_folder("train") / "answers.parquet")
    counts = answers.filter(side="test").group_by("arm", "seed").len()
    asked = pl.read_parquet(
        done.step_folder("questions") / "shards" / "pointer_fixed" / "questions.parquet"
    )
    n = len(asked.filter(split="test"))
    assert n == 13  # of six starts one in two hops, and all in three and four, as none was trained
    assert sorted(counts.iter_rows()) == [
        (arm, seed, n) for arm in ("slots", "transformer") for seed in (42, 43)
    ]
    assert answers.select("arm", "seed", "side", "id").is_unique().all()
    one = answers.filter(side="test", arm="slots", seed=42)
    assert one["is_right"].to_list() == (one["answer"] == one["target"]).to_list()
    assert (one["n_steps"] == 2 * one["depth"]).all()


def test_what_the_report_says_is_what_was_answered(done):
    answers = pl.read_parquet(done.step_folder("train") / "answers.parquet").filter(side="test")
    table = pl.read_csv(done.folder / "tables" / "accuracy.csv")
    assert table["arm"].to_list() == ["slots", "transformer", "majority", "bag_of_words"]
    for arm in ("slots", "transformer"):
        said = table.filter(arm=arm)["accuracy"][0]
        assert said == pytest.approx(answers.filter(arm=arm)["is_right"].mean())
    depths = pl.read_csv(done.folder / "tables" / "depths.csv")
    assert set(depths["depth"]) == set(answers["depth"])
    ranges = pl.read_csv(done.folder / "tables" / "depth_ranges.csv")
    for arm, own in ranges.group_by("arm"):
        right = own["accuracy"] * own["n"]
        by_depth = depths.filter(pl.col("arm") == arm[0])
        assert right.sum() == pytest.approx((by_depth["accuracy"] * by_depth["n"]).sum())
        assert own["depths"].to_list() == ["trained", "deeper"]
    assert (done.folder / "report.html").stat().st_size > 10_000


def test_sizes_are_matched_and_said(done):
    sizes = pl.read_csv(done.folder / "tables" / "sizes.csv")
    matched = sizes.filter(arm="transformer")
    assert matched["matched_in"][0] == "non-embedding parameters"
    assert abs(matched["gap"][0]) <= 0.02


def test_inside_of_slot_networks_is_kept(done):
    folder = done.step_folder("train") / "shards" / "pointer_fixed.slots.42"
    tensors = read_tensors(folder / "facts.safetensors")
    strengths = tensors["strengths"].numpy()
    assert strengths.shape == (4, 4)
    assert (np.diag(strengths) == 0).all()
    assert tensors["trajectories"].shape[1:] == (9, 4, 16)
    np.testing.assert_allclose(tensors["shares"].sum(dim=1).numpy(), 1, atol=1e-5)
    state = read_json(folder / "state.json")
    assert state["facts"]["avg_reasoning_steps"] > 2
    assert (folder / "trained.safetensors").exists()
    assert not (folder.parent / "pointer_fixed.transformer.42" / "trained.safetensors").exists()


def test_the_same_run_again_has_the_same_bytes(done, tmp_path):
    assert step_bytes(run_small(tmp_path)) == step_bytes(done)


def test_struck_in_every_step_it_ends_with_the_same_bytes(done, tmp_path, monkeypatch):
    monkeypatch.setattr(ConnectionStudy, "steps", ConnectionStudy.steps)
    run, strikes = end_after_strikes(
        ConnectionStudy,
        lambda: run_small(tmp_path / "runs"),
        ["train-merge"],
        tmp_path / "struck",
    )
    assert strikes == {"questions", "train", "train-merge"}
    assert step_bytes(run) == step_bytes(done)


@pytest.mark.slow
def test_two_workers_give_what_one_does(done, tmp_path):
    how = How(executor="processes", workers=2, devices="cpu", retries=0)
    assert step_bytes(run_small(tmp_path, how=how)) == step_bytes(done)


def test_questions_alone_have_no_report_yet(tmp_path):
    how = How(devices="cpu", retries=0)
    run = execute(ConnectionStudy(), small(), "part", how, root=tmp_path, until="preprocessing")
    assert (run.step_folder("questions") / "shards" / "pointer_fixed" / "set.json").exists()
    assert not (run.folder / "report.html").exists()


def test_a_plan_is_made_before_anything_is_read():
    config = ConnectionStudy().resolve(small())
    costs = {step.name: step.cost() for step in ConnectionStudy().steps(config)}
    assert costs["train"].flops > 0
    assert costs["train"].parallel == 4
    wider = ConnectionStudy().resolve(small(arms=["slots", "transformer", "none"]))
    more = ConnectionStudy().steps(wider)[1].cost()
    assert more.flops > costs["train"].flops


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"arms": ["slot"]}, ConfigError, "no arm 'slot'.*Did you mean 'slots'"),
        ({"arms": []}, ConfigError, "something to train"),
        ({"data": {"sets": ["logica"]}}, ConfigError, "Did you mean 'logiqa'"),
        ({"network": {"connection": {"rank": 0}}}, ConfigError, "rank"),
        ({"network": {"max_steps": -1}}, ConfigError, "max_steps"),
        ({"num_slots": 3}, ConfigError, "num_slots"),
        (
            {"network": {"d_model": 33, "output": {"name": "decoder"}}},
            ConfigError,
            r"a multiple of output\.n_heads, got 33",
        ),
        ({"network": {"noise": float("inf")}}, ConfigError, "finite number"),
        ({"network": {"neighbours": 64, "max_source": 64}}, ConfigError, "below the 64 tokens"),
        ({"data": {"max_answer": 1}}, ConfigError, "max_answer"),
        ({"training": {"prices": {"ponder": 0.1}}}, ConfigError, "where stopping is learnt"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        ConnectionStudy().resolve(small(**changes))


def test_an_arm_of_k_steps_thinks_so_often_whatever_the_settings_say(tmp_path):
    thinking = {"steps": "by_depth", "supervised": "hops"}
    training = {**TRAINING, "thinking": thinking, "max_epochs": 1}
    run = run_small(tmp_path, arms=["slots", "steps_3"], training=training, seeds=1)
    answers = pl.read_parquet(run.step_folder("train") / "answers.parquet")
    steps = dict(answers.group_by("arm").agg(pl.col("n_steps").unique().sort()).iter_rows())
    assert steps["steps_3"] == [3]
    assert len(steps["slots"]) > 1


def test_depths_that_a_table_says_of_some_questions_are_told_apart(tmp_path):
    table = tmp_path / "table.csv"
    rows = [{"source": f"text {i}", "target": ["yes", "no"][i % 2], "depth": i % 3 or None}
            for i in range(60)]  # fmt: skip
    pl.DataFrame(rows).write_csv(table)
    training = {**TRAINING, "thinking": {"steps": "all"}, "max_epochs": 1}
    data = {"sets": [f"file:{table}"]}
    run = run_small(tmp_path, data=data, arms=["slots"], training=training, seeds=1)
    ranges = pl.read_csv(run.folder / "tables" / "depth_ranges.csv")
    assert set(ranges["depths"]) >= {"trained", "not said"}
    n_test = ranges.filter(pl.col("arm") == "slots")["n"].sum()
    answers = pl.read_parquet(run.step_folder("train") / "answers.parquet")
    assert n_test == len(answers.filter(pl.col("side") == "test"))


def test_copies_of_a_fixed_graph_are_not_taken_from_its_edges():
    known = question_set("pointer_fixed")
    check_edges_stay(known, 240, 240)
    check_edges_stay(question_set("pointer_text"), 8, 240)
    with pytest.raises(ConfigError, match=r"Leave it out; data\.made\.n_train"):
        check_edges_stay(known, 8, 240)


def test_a_table_without_answers_is_refused(tmp_path):
    table = tmp_path / "table.csv"
    pl.DataFrame({"source": [f"text {i}" for i in range(30)]}).write_csv(table)
    with pytest.raises(CorpusError, match="target"):
        run_small(tmp_path / "runs", data={"sets": [f"file:{table}"]})


def test_hops_that_a_table_does_not_say_cannot_be_counted(tmp_path):
    table = tmp_path / "table.csv"
    rows = {"source": [f"text {i}" for i in range(40)], "target": ["yes", "no"] * 20}
    pl.DataFrame(rows).write_csv(table)
    with pytest.raises(ConfigError, match="how many hops"):
        run_small(tmp_path / "runs", data={"sets": [f"file:{table}"]}, arms=["slots"])


def test_a_run_that_is_written_down_can_be_built_again(done):
    record = json.loads((done.folder / "run.json").read_text())
    assert record["study"] == "connection"
    assert build(ConnectionSpec, small().model_dump(mode="json")) == small()


def test_each_set_of_a_table_has_its_own_folder(tmp_path: Path):
    for name in ("one", "two"):
        rows = {"source": [f"{name} {i}" for i in range(40)], "target": ["yes", "no"] * 20}
        pl.DataFrame(rows).write_csv(tmp_path / f"{name}.csv")
    sets = [f"file:{tmp_path / 'one.csv'}", f"file:{tmp_path / 'two.csv'}"]
    training = {**TRAINING, "thinking": {"steps": "all"}, "max_epochs": 1}
    run = run_small(
        tmp_path / "runs", data={"sets": sets}, arms=["slots"], training=training, seeds=1
    )
    assert {one.name for one in (run.step_folder("train") / "shards").iterdir()} == {
        "one.csv.slots.42",
        "two.csv.slots.42",
    }
