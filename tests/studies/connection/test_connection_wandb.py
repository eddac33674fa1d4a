"""What reaches Weights & Biases of a run and of phases, and where a training's memory is said."""

import fake_wandb
import polars as pl
import pytest
from small_connection_study import run_bare, run_few_phases, small, step_bytes

from fluoroscope.core.config import settings_hash, what_half
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import read_json
from fluoroscope.runs.events import read_events
from fluoroscope.runs.terminal import size
from fluoroscope.runs.usage import shard_peaks
from fluoroscope.steps import wandb_runs
from fluoroscope.studies.connection.study import ConnectionStudy

SLOTS, TRANSFORMER = "pointer_fixed.slots.42", "pointer_fixed.transformer.42"
ARMS = {"arms": ["slots", "transformer"], "seeds": 1}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    fake_wandb.nothing_set(monkeypatch)


def faked(begin):
    """What a run has left, and what it has said to the package."""
    with pytest.MonkeyPatch.context() as patch:
        fake_wandb.nothing_set(patch)
        there = fake_wandb.put_in_place(patch)
        return begin(), {one.asked["name"]: one for one in there}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return faked(lambda: run_bare(tmp_path_factory.mktemp("runs"), wandb=True, **ARMS))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return faked(lambda: run_few_phases(root, until="phase2", wandb=True))


def test_each_training_is_a_run_with_its_settings(done):
    run, there = done
    assert list(there) == [SLOTS, TRANSFORMER]
    asked = there[SLOTS].asked
    assert (asked["mode"], asked["group"], asked["dir"]) == ("offline", "small", str(run.folder))
    settings = asked["config"]
    assert settings["reasoner"]["n_slots"] == 4
    assert (settings["arm"], settings["seed"], settings["batch_size"]) == ("slots", 42, 16)
    assert there[TRANSFORMER].asked["config"]["matched"]["unit"] == "non-embedding parameters"
    assert {"Dataset: pointer_fixed", "Arm: slots"} <= set(asked["tags"])
    assert asked["id"] != there[TRANSFORMER].asked["id"]


def test_every_look_of_a_training_is_written(done):
    run, there = done
    curve = pl.read_parquet(run.folder / "train" / "shards" / SLOTS / "curve.parquet")
    assert len(curve) == 2
    for row in curve.iter_rows(named=True):
        said = there[SLOTS].logged[row["step"]]
        assert said["train_loss"] == row["train_answer"]
        assert said["reasoning_steps"] == row["validation_steps"]
        same = ("train_grad_norm", "learning_rate", "validation_accuracy", "validation_loss")
        assert {name: said[name] for name in same} == {name: row[name] for name in same}
    assert "train_step_cost" in there[SLOTS].logged[3]
    assert "train_step_cost" not in there[TRANSFORMER].logged[3]


def test_scores_of_the_test_side_and_facts_are_in_the_summary(done):
    run, there = done
    answers = pl.read_parquet(run.folder / "train" / "answers.parquet").filter(side="test")
    for arm, name in (("slots", SLOTS), ("transformer", TRANSFORMER)):
        own, summary = answers.filter(arm=arm), there[name].summary
        assert summary["TEST/accuracy"] == pytest.approx(own["is_right"].mean())
        assert summary["TEST/loss"] == pytest.approx(own["loss"].mean())
        assert there[name].logged[7]["TEST_Result"][0]["accuracy"] == summary["TEST/accuracy"]
    facts = read_json(run.folder / "train" / "shards" / SLOTS / "state.json")["facts"]
    assert there[SLOTS].summary["avg_reasoning_steps"] == facts["avg_reasoning_steps"]
    assert "avg_reasoning_steps" not in there[TRANSFORMER].summary


def test_memory_is_that_of_the_runs_own_log_and_said_in_the_report(done):
    run, there = done
    measured = {
        event["shard"]: event["peak_rss_bytes"]
        for event in read_events(run.folder, "shard finished")
        if event["step"] == "train"
    }
    peaks = shard_peaks(run.folder, "train")
    assert {name: one.bytes for name, one in peaks.items()} == measured
    report = (run.folder / "report.html").read_text()
    for arm, name in (("slots", SLOTS), ("transformer", TRANSFORMER)):
        assert there[name].summary["memory_used"] == measured[name] / 1e9
        assert f"{arm} {size(measured[name])} (cpu)" in report


def test_it_changes_no_result(done, tmp_path):
    assert step_bytes(done[0]) == step_bytes(run_bare(tmp_path, **ARMS))
    assert settings_hash(what_half(small())) == settings_hash(what_half(small(wandb=True)))


def test_trainings_of_phases_have_their_phase(swept):
    run, there = swept
    assert list(there) == [
        "phase1/pointer_fixed.bilinear_base.42",
        "phase1/pointer_fixed.none.42",
        "phase2/pointer_fixed.as_before.42",
    ]
    assert len({one.asked["id"] for one in there.values()}) == 3
    for name, one in there.items():
        phase, key = name.split("/")
        assert one.asked["config"]["step"] == phase
        answers = pl.read_parquet(run.folder / phase / "shards" / key / "answers.parquet")
        accuracy = answers.filter(side="test")["is_right"].mean()
        assert one.summary["TEST/accuracy"] == pytest.approx(accuracy)


def test_a_sweep_reports_the_phases_that_are_done(swept):
    run, _ = swept
    report = (run.folder / "report.html").read_text()
    assert "Phase 2: how many slots" in report
    assert "Phase 3: which rank" not in report
    assert "Peak memory of a training" in report


def test_a_missing_package_is_said_before_training(monkeypatch):
    monkeypatch.setattr(wandb_runs, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"wandb=true needs .*fluoroscope\[wandb\]"):
        ConnectionStudy().resolve(small(wandb=True))


@pytest.mark.slow
def test_the_package_writes_a_folder_for_each_training(tmp_path):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    run = run_bare(tmp_path, wandb=True, **{**ARMS, "seeds": 2})
    assert len(list((run.folder / "wandb").glob("offline-run-*"))) == 4
