"""What reaches Weights & Biases of a finished run: names, numbers, the choice of a layer."""

import json
import sys
from types import SimpleNamespace

import pytest
from made_up_run import SET, made_up_config, made_up_run

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.plugin import wandb_log
from fluoroscope.studies.plugin.report_findings import load_findings
from fluoroscope.studies.plugin.wandb_log import check_wandb, logged_trainings, write_wandb

RIGHT = {"faithful-02": 0.9, "base": 0.7}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def made_up(tmp_path):
    config = made_up_config(mode="pifi_ilm", beside=["base"], seeds=1, model="bert", llm="qwen2_7b")
    run = made_up_run(tmp_path, config, RIGHT)
    return run, config, load_findings(run, config)


class FakeRun:
    def __init__(self, **asked):
        self.asked, self.logged, self.summary, self.artifacts = asked, {}, {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def log(self, values, step):
        self.logged.setdefault(step, {}).update(values)

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)


class FakeArtifact:
    def __init__(self, name, type):
        self.name, self.type, self.files = name, type, []

    def add_file(self, path):
        self.files.append(path.rpartition("/")[2])


@pytest.fixture
def fake(monkeypatch):
    """The package, with all that is said to it."""
    runs = []

    def init(**asked):
        runs.append(FakeRun(**asked))
        return runs[-1]

    def table(columns, data):
        return [dict(zip(columns, row, strict=True)) for row in data]

    module = SimpleNamespace(
        init=init, Table=table, Image=str, Artifact=FakeArtifact, Settings=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(wandb_log, "find_spec", lambda _: object())
    return runs


def test_names_and_tags_are_the_plans_own(made_up):
    main, base = logged_trainings(*made_up)
    assert main.name == "0 CLASSIFICATION - SST2 / BERT - PIFI - qwen2_7b(2)"
    assert base.name == "0 CLASSIFICATION - SST2 / BERT - BASE - none"
    assert main.project == "PiFi_Classification"
    assert {"Dataset: sst2", "LLM_Layer: 2", "Method: pifi"} <= set(main.tags)
    assert not any(tag.startswith("LLM") for tag in base.tags)


def test_ids_are_of_the_training_and_stay(made_up):
    first, second = ([one.id for one in logged_trainings(*made_up)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 2


def test_every_number_of_a_training_is_written(made_up, fake):
    run, config, found = made_up
    assert write_wandb(run, config, found) == 2
    main, base = fake
    assert main.asked["mode"] == "offline"
    assert main.asked["dir"] == str(run.folder)
    assert main.logged[1]["TRAIN/Epoch_Loss"] == 1.0
    assert main.logged[2]["VALID/Epoch_F1"] == pytest.approx(0.2)
    assert main.logged[2]["Epoch_Index"] == 2
    accuracy = float(found.sets[0].judged["faithful-02"].right.mean())
    assert main.logged[3]["TEST/accuracy"] == pytest.approx(accuracy)
    assert main.summary["TEST/accuracy"] == pytest.approx(accuracy)
    assert main.logged[3]["TEST_Result"][0]["accuracy"] == pytest.approx(accuracy)
    assert base.summary["TEST/accuracy"] < accuracy


def test_the_choice_of_a_layer_reaches_the_main_arm_alone(made_up, fake):
    write_wandb(*made_up)
    main, base = fake
    assert main.summary["best_llm_layer"] == 2
    assert main.summary["best_layer_effect"] == 0.6
    assert main.logged[4]["selection/effects_table"][1] == {"layer": 1, "effect": 0.54}
    (artifact,) = main.artifacts
    assert artifact.name == f"selection-{SET}"
    assert artifact.files == ["selection.json", "layer_scores.csv"]
    assert not base.artifacts
    assert "best_llm_layer" not in base.summary


def test_the_environment_goes_before_the_plans_names(made_up, fake, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "ours")
    monkeypatch.setenv("WANDB_MODE", "online")
    write_wandb(*made_up)
    asked = fake[0].asked
    assert (asked["project"], asked["entity"], asked["mode"]) == ("mine", "ours", "online")


def test_a_missing_package_is_said_before_anything(monkeypatch):
    monkeypatch.setattr(wandb_log, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"fluoroscope\[wandb\]"):
        check_wandb()


def test_an_unknown_mode_is_an_error(fake, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigError, match="online, offline or disabled"):
        check_wandb()


@pytest.mark.slow
def test_offline_files_hold_the_numbers_and_are_not_doubled(made_up):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    run, config, found = made_up
    for _ in range(2):
        write_wandb(run, config, found)
    folders = list((run.folder / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    for folder, one in (
        (folder, one)
        for one in logged_trainings(run, config, found)
        for folder in folders
        if folder.name.endswith(one.id)
    ):
        assert (folder / f"run-{one.id}.wandb").stat().st_size > 0
        (table,) = (folder / "files" / "media" / "table").glob("TEST_Result*.json")
        said = json.loads(table.read_text())
        assert dict(zip(said["columns"], said["data"][0], strict=True)) == pytest.approx(one.test)
