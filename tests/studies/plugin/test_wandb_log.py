"""What reaches Weights & Biases of a finished run: names, numbers, the choice of a layer."""

import json

import fake_wandb
import pytest
from made_up_run import SET, made_up_config, made_up_run

from fluoroscope.steps.wandb_runs import write_runs
from fluoroscope.studies.plugin.report_findings import load_findings
from fluoroscope.studies.plugin.wandb_log import logged_trainings

RIGHT = {"faithful-02": 0.9, "base": 0.7}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    fake_wandb.nothing_set(monkeypatch)


@pytest.fixture
def made_up(tmp_path):
    config = made_up_config(mode="pifi_ilm", beside=["base"], seeds=1, model="bert", llm="qwen2_7b")
    run = made_up_run(tmp_path, config, RIGHT)
    return run, config, load_findings(run, config)


@pytest.fixture
def written(made_up, monkeypatch):
    """The runs there, of the main arm and of base."""
    runs = fake_wandb.put_in_place(monkeypatch)
    assert write_runs(made_up[0], logged_trainings(*made_up)) == 2
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


def test_every_number_of_a_training_is_written(made_up, written):
    _, _, found = made_up
    main, base = written
    assert main.logged[1]["TRAIN/Epoch_Loss"] == 1.0
    assert main.logged[2]["VALID/Epoch_F1"] == pytest.approx(0.2)
    assert main.logged[2]["Epoch_Index"] == 2
    accuracy = float(found.sets[0].judged["faithful-02"].right.mean())
    assert main.logged[3]["TEST/accuracy"] == pytest.approx(accuracy)
    assert main.summary["TEST/accuracy"] == pytest.approx(accuracy)
    assert main.logged[3]["TEST_Result"][0]["accuracy"] == pytest.approx(accuracy)
    assert base.summary["TEST/accuracy"] < accuracy


def test_the_choice_of_a_layer_reaches_the_main_arm_alone(written):
    main, base = written
    assert main.summary["best_llm_layer"] == 2
    assert main.summary["best_layer_effect"] == 0.6
    assert main.logged[4]["selection/effects_table"][1] == {"layer": 1, "effect": 0.54}
    (artifact,) = main.artifacts
    assert artifact.name == f"selection-{SET}"
    assert artifact.files == ["selection.json", "layer_scores.csv"]
    assert not base.artifacts
    assert "best_llm_layer" not in base.summary


@pytest.mark.slow
def test_the_package_takes_the_choice_of_a_layer_with_its_files(made_up):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    run = made_up[0]
    main, _ = all_logged = list(logged_trainings(*made_up))
    write_runs(run, all_logged)
    (folder,) = (run.folder / "wandb").glob(f"offline-run-*-{main.id}")
    tables = folder / "files" / "media" / "table"
    (effects,) = (tables / "selection").glob("effects_table*.json")
    assert json.loads(effects.read_text())["data"] == [[0, 0.5], [1, 0.54], [2, 0.6], [3, 0.56]]
    (result,) = tables.glob("TEST_Result*.json")
    said = json.loads(result.read_text())
    assert dict(zip(said["columns"], said["data"][0], strict=True)) == pytest.approx(main.test)
