"""Which folders of the plan a run is said to have written."""

import pytest
from made_up_run import SET, made_up_config, made_up_run

from fluoroscope.core.storage import write_json
from fluoroscope.studies.plugin.summary import written_files

RIGHT = {"faithful-02": 0.9, "base": 0.7, "random_layer-02": 0.7}


@pytest.fixture
def run(tmp_path):
    config = made_up_config(outputs={"models": str(tmp_path / "models")})
    return made_up_run(tmp_path / "one", config, RIGHT)


@pytest.fixture
def layer(tmp_path, run):
    """Where the plan keeps layers of this run."""
    model = run.config.model
    return (
        tmp_path / "models" / "classification" / SET / model.pooling / model.source
        / "pifi" / "llama3.1" / "2"
    )  # fmt: skip


def test_only_what_this_run_left_in_the_plans_folders_is_named(run, layer):
    for folder, name in ((layer, "one"), (layer / "run-0a", "one"), (layer / "run-0b", "two")):
        write_json(folder / "state.json", {"run": name})
    assert written_files(run) == [layer, layer / "run-0a"]


def test_files_of_others_are_passed_over(run, layer, tmp_path):
    write_json(layer / "state.json", {"run": "one"})
    for folder in (tmp_path / "models", tmp_path / "models" / "hub" / "deep", layer / "own"):
        write_json(folder / "state.json", {"run": "one"})
    texts = {"run-0a": "[1, 2]", "run-0b": "not JSON", "run-0c": "7", "run-0d": "{}"}
    for name, text in texts.items():
        (layer / name).mkdir()
        (layer / name / "state.json").write_text(text)
    (layer / "run-0e" / "state.json").mkdir(parents=True)
    (layer / "run-0f").mkdir()
    (layer / "run-0f" / "state.json").write_bytes(b"\xff\xfe")
    assert written_files(run) == [layer]
