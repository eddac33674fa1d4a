"""The seed's command lines: what they run, and the files that they leave."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_defects_data import FirstSteps

from fluoroscope.core.errors import ConfigError
from fluoroscope.runs.engine import execute
from fluoroscope.studies.gambling.seed_files.games import import_games
from fluoroscope.studies.gambling.study import GamblingStudy
from fluoroscope.studies.settings import study_spec

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
NAMES = (
    "multilayer_patching_corrected",
    "layer_pathway_tracking",
    "feature_word_analysis_corrected",
    "llama_3200_infinite_retry",
    "gemma_3200_no_deepspeed",
)
ORGANISM = ["--model", "organism", "--gpu_id", "cpu"]
SMALL = [
    "game.rules.max_rounds=4", "contrast.permutations=0", "patch.states=4",
    "patch.held_out_states=10", "patch.shortlist=2", "patch.controls=2", "patch.confirm.latents=1",
    "patch.confirm.prompts=2", "patch.confirm.trials=3", "patch.confirm.random=1",
    "games.latents=0", "pathway.games=4", "pathway.states=2",
    "pathway.shuffles=2", "words.latents=2", "words.min_texts=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def words(name, *arguments):
    """What a script would have `fluoro` do."""
    script = importlib.import_module(name)
    found = []

    def note(command, *_):
        found.extend(command)

    with pytest.MonkeyPatch.context() as patch:
        for module in (script, importlib.import_module("seed_command")):
            if hasattr(module, "run_and_write"):
                patch.setattr(module, "run_and_write", note)
        patch.setattr(sys, "argv", [name, *arguments])
        script.main()
    return found


def settings(command):
    return dict(word.split("=", 1) for word in command if "=" in word)


def test_the_seeds_own_line_is_its_layers_on_its_gpu():
    line = ["--gpu_id", "2", "--layer_start", "1", "--layer_end", "8"]
    command = words("multilayer_patching_corrected", *line)
    assert command[:2] == ["run", "gambling"]
    assert command[command.index("--devices") + 1] == "cuda:2"
    assert command[command.index("--name") + 1] == "multilayer_gpu2"
    assert command[command.index("--preset") + 1] == "gambling/llama-3.1-8b"
    assert settings(command)["saes.hook_points"] == "1,2,3,4,5,6,7,8.resid_post"
    assert settings(command)["saes.source"] == "fnlp/Llama3_1-8B-Base-LXR-8x"


def test_several_gpus_are_several_workers_of_one_run():
    command = words("multilayer_patching_corrected", "--gpu_id", "2,4,6,7")
    assert command[command.index("--devices") + 1] == "cuda:2,cuda:4,cuda:6,cuda:7"
    assert command[command.index("--workers") + 1] == "4"


def test_layers_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="no layer from 8 to 1"):
        words("layer_pathway_tracking", "--layer_start", "8", "--layer_end", "1")


@pytest.mark.parametrize("name", NAMES)
def test_every_script_asks_for_settings_that_there_are(name):
    layers = [] if "3200" in name else ["--layer_start", "1", "--layer_end", "3"]
    command = words(name, "threads=1", *ORGANISM, *layers, "seed=7")
    overrides = [word for word in command if "=" in word]
    spec = study_spec("gambling", command[command.index("--preset") + 1], None, overrides)
    assert spec.model_dump()["model"]["source"] == "organism"
    # What the user says last is what counts.
    assert spec.model_dump()["seed"] == 7
    if "3200" in name:
        assert spec.model_dump()["saes"]["source"] is None
    else:
        assert spec.model_dump()["saes"]["hook_points"] == "1,2,3.resid_post"


@pytest.mark.parametrize("name", NAMES)
def test_no_script_knows_a_path_or_a_gpu(name):
    text = (SCRIPTS / f"{name}.py").read_text()
    assert "/home/" not in text
    assert "/data/" not in text
    assert "CUDA_VISIBLE_DEVICES" not in text


@pytest.fixture
def run_script(tmp_path, monkeypatch, capsys):
    """Runs a script in this process, in a folder of its own; gives its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path / "runs"))

    def fluoro(study):
        # What the command does, without a terminal.
        given = sys.argv
        preset, name = (given[given.index(f"--{option}") + 1] for option in ("preset", "name"))
        spec = study_spec("gambling", preset, None, [word for word in given if "=" in word])
        execute(study(), spec, name)
        sys.exit(0)

    def run(name, *arguments, study=GamblingStudy):
        common = importlib.import_module("seed_command")
        monkeypatch.setattr(common, "fluoro", lambda: fluoro(study))
        monkeypatch.setattr(sys, "argv", [name, *ORGANISM, *arguments])
        importlib.import_module(name).main()
        return capsys.readouterr().out

    return run


def test_games_that_a_script_played_are_games_that_can_be_brought(run_script, tmp_path):
    output = run_script(
        "llama_3200_infinite_retry", "--out", "found", "game.conditions=[fixed-BASE,fixed-G]",
        "play.repetitions=2", "play.repetitions_per_shard=2", "game.rules.max_rounds=6",
        study=FirstSteps,
    )  # fmt: skip
    assert output.split()[-1] == "found/llama_3200_games.json"
    found = import_games(tmp_path / "found")
    assert found.games["condition"].to_list() == ["fixed-BASE", "fixed-G"] * 2
    assert found.attempts["prompt"].null_count() == 0


@pytest.mark.slow
def test_all_results_of_the_plan_are_there_under_its_names(run_script, tmp_path):
    run_script("llama_3200_infinite_retry", "play.repetitions=4")
    games = tmp_path / "runs/llama_3200/seed_files/llama_3200_games.json"
    shared = ["--log", str(games), "--layer_start", "2", "--layer_end", "3", "--out", "found"]
    # The same settings under one name are one run, which the second and third find done.
    for name in NAMES[:3]:
        run_script(name, *shared, "--name", "one", *SMALL)
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "L2_3_features_FINAL.json",
        "multilayer_final_cpu.json",
        "layer_pathway.json",
        "feature_word_associations.json",
    }
    patching = json.loads((tmp_path / "found/multilayer_final_cpu.json").read_text())
    assert len(patching["results"]) == 2
    assert sum(bool(one["results"]) for one in patching["results"]) == 1


@pytest.mark.slow
def test_a_script_says_what_can_be_mended_as_fluoro_does(tmp_path):
    script = SCRIPTS / "llama_3200_infinite_retry.py"
    done = subprocess.run(
        [sys.executable, str(script), *ORGANISM, "play.repetition=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'play.repetition'" in done.stderr
    assert "Traceback" not in done.stderr


def test_devices_are_named_as_torch_does():
    common = importlib.import_module("seed_command")
    assert common.devices("auto") == "auto"
    assert common.devices("2,4") == "cuda:2,cuda:4"
    with pytest.raises(ConfigError, match="gpu_id is a number"):
        common.devices("cuda:2")
    options = argparse.Namespace(model=None, saes="some/folder", layer_start=3, layer_end=3)
    assert common.layer_settings(options)["saes.source"] == "some/folder"
