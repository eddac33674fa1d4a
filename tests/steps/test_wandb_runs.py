"""What is written for Weights & Biases of any study's trainings."""

import json
import os

import fake_wandb
import pytest

from fluoroscope.core.config import Config, how
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.runs.run import Run
from fluoroscope.steps import wandb_runs
from fluoroscope.steps.wandb_runs import (
    Logged,
    check_wandb,
    training_id,
    training_tags,
    write_runs,
)


class Settings(Config):
    seed: int = 0
    is_logged: bool = how(False)


class Heard(Sink):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    fake_wandb.nothing_set(monkeypatch)


@pytest.fixture
def fake(monkeypatch):
    return fake_wandb.put_in_place(monkeypatch)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "some", "some study", Settings())


def logged(run, name="first", **changes) -> Logged:
    known = {
        "id": training_id(run, run.config, name),
        "project": "ours",
        "name": name,
        "tags": ("TRAIN",),
        "settings": {"width": 3},
        "curve": [(10, {"loss": 2.0}), (20, {"loss": 1.0})],
        "test": {"accuracy": 0.75},
    }
    return Logged(**{**known, **changes})


def test_curve_scores_and_summary_stand_at_their_steps(run, fake):
    sink = Heard()
    some = [logged(run, summary={"memory_used": 0.5}), logged(run, "second")]
    assert write_runs(run, some, sink) == 2
    first, second = fake
    assert first.logged[10] == {"loss": 2.0}
    assert first.logged[20] == {"loss": 1.0}
    assert first.logged[21] == {
        "TEST/accuracy": 0.75,
        "memory_used": 0.5,
        "TEST_Result": [{"accuracy": 0.75}],
    }
    assert first.summary == {"TEST/accuracy": 0.75, "memory_used": 0.5}
    assert first.asked["mode"] == "offline"
    assert (first.asked["group"], first.asked["dir"]) == ("some", str(run.folder))
    assert first.asked["config"] == {"width": 3}
    assert first.asked["id"] != second.asked["id"]
    assert sink.texts == ["Written for Weights & Biases: 2 runs"]


def test_what_a_training_alone_has_is_written_behind_it(run, fake):
    seen = []
    write_runs(run, [logged(run, more=lambda there, step: seen.append((there, step)))])
    assert seen == [(fake[0], 22)]


def test_ids_are_of_the_run_and_its_results_and_not_of_how_it_works(tmp_path):
    def of(name="some", training="first", **settings):
        run = Run(tmp_path / name, "some study", Settings(**settings))
        return training_id(run, run.config, training)

    assert of() == of(is_logged=True)
    assert len({of(), of(name="other"), of(training="second"), of(seed=1)}) == 4


def test_tags_are_cut_and_have_no_commit_where_a_run_has_none(run):
    assert training_tags(run, "TRAIN", "x" * 100) == ("TRAIN", "x" * 64)


def test_an_older_offline_run_of_the_same_training_is_replaced(run, fake):
    one = logged(run)
    old = run.folder / "wandb" / f"offline-run-20240101_000000-{one.id}"
    other = run.folder / "wandb" / "offline-run-20240101_000000-0123456789abcdef"
    for folder in (old, other):
        folder.mkdir(parents=True)
    write_runs(run, [one])
    assert not old.exists()
    assert other.exists()


def test_the_environment_goes_before_our_names_and_is_left_as_it_was(run, fake, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    inside = []
    write_runs(run, [logged(run, more=lambda *_: inside.append(os.environ["WANDB_DATA_DIR"]))])
    asked = fake[0].asked
    assert (asked["project"], asked["entity"], asked["mode"]) == ("mine", "team", "online")
    assert inside == [str(run.folder / "wandb" / "data")]
    assert "WANDB_DATA_DIR" not in os.environ


def test_a_missing_package_is_said_before_anything(monkeypatch):
    monkeypatch.setattr(wandb_runs, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"this=true needs .*fluoroscope\[wandb\]"):
        check_wandb("this")


def test_an_unknown_mode_is_an_error(fake, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigError, match="online, offline or disabled"):
        check_wandb("this")


@pytest.mark.slow
def test_offline_files_hold_the_numbers_and_are_not_doubled(run):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    some = [logged(run), logged(run, "second", test={"accuracy": 0.25})]
    for _ in range(2):
        write_runs(run, some)
    folders = {one.name[-16:]: one for one in (run.folder / "wandb").glob("offline-run-*")}
    assert folders.keys() == {one.id for one in some}
    for one in some:
        assert (folders[one.id] / f"run-{one.id}.wandb").stat().st_size > 0
        (table,) = (folders[one.id] / "files" / "media" / "table").glob("TEST_Result*.json")
        said = json.loads(table.read_text())
        assert dict(zip(said["columns"], said["data"][0], strict=True)) == one.test
