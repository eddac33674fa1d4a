"""The command line: instant help, plain errors, and runs that can be left alone."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluoroscope import __version__
from fluoroscope.runs.how import How
from fluoroscope.runs.settings_help import list_settings, type_text
from fluoroscope.studies import SPECS, STUDIES
from fluoroscope.studies.settings import preset_files, study_spec

TOY = Path(__file__).parent / "runs" / "toy_cli.py"


def fluoro(
    *arguments: str, runs: Path | None = None, script: Path | None = None
) -> subprocess.CompletedProcess[str]:
    program = [str(script)] if script else ["-m", "fluoroscope"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env={**os.environ, "FLUOROSCOPE_RUNS": str(runs or "runs"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "dictionary", "--help"]])
def test_help_needs_neither_torch_nor_transformers(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom fluoroscope.cli import main\n"
        f"sys.argv = ['fluoro', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'polars', 'numba', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_of_a_study_tells_every_setting() -> None:
    done = fluoro("run", "dictionary", "--help")
    for setting in list_settings(SPECS.load("dictionary")):
        assert setting.key in done.stdout
        assert setting.doc, f"{setting.key} has no documentation"


@pytest.mark.parametrize("study", list(STUDIES))
def test_each_study_has_a_spec_of_its_name_and_presets_that_it_accepts(study: str) -> None:
    made = STUDIES.load(study)
    assert made.name == study
    assert made.spec is SPECS.load(study)
    for preset in preset_files():
        if preset.startswith(f"{study}/"):
            given = ["model=x", "corpus=y"]
            assert isinstance(study_spec(study, preset, None, given), made.spec)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [(int | None, "int | none"), (list[str], "list[str]"), (How, "How")],
)
def test_types_are_said_as_a_user_would(annotation: object, text: str) -> None:
    assert type_text(annotation) == text


def test_version_is_said() -> None:
    assert fluoro("--version").stdout == f"fluoroscope {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "dictionry"], "Did you mean 'dictionary'?"),
        (["run", "dictionary", "modle=x"], "Setting 'modle' does not exist. Did you mean 'model'?"),
        (["run", "dictionary", "model"], "Settings are given as key=value, got 'model'."),
        (["run", "dictionary", "--preset", "nope"], "Preset 'nope' does not exist."),
        (["run", "dictionary", "--config", "no.yaml"], "There is no settings file no.yaml."),
        (["run", "dictionary", "--executor", "cloud"], "Setting 'executor'"),
        (["show", "nothing"], "There is no run 'nothing'"),
        (["query", "nothing", "select 1"], "There is no run 'nothing'"),
        (["compare", "nothing", "nothing"], "There is no run 'nothing'"),
    ],
)
def test_what_the_user_can_mend_is_a_message_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = fluoro(*arguments, runs=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_settings_are_laid_over_each_other_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: from-file\ncorpus: text.txt\nn_tokens: 3e6\nseed: 5\n")
    spec = study_spec("dictionary", None, file, ["model=typed", "n_tokens=2e6"])
    assert spec.model_dump(include={"model": {"source"}, "n_tokens": True, "seed": True}) == {
        "model": {"source": "typed"},
        "n_tokens": 2_000_000,
        "seed": 5,
    }


def test_a_run_its_record_and_its_tables_from_the_command_line(tmp_path: Path) -> None:
    done = fluoro("run", "toy", "seed=3", runs=tmp_path, script=TOY)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert re.fullmatch(r"toy-[0-9a-f]{8}", folder.name)
    assert f"Done: {folder}" in done.stdout
    assert "walks: finished in" in done.stderr
    assert folder.name in fluoro("list", runs=tmp_path).stdout
    assert "seed" in fluoro("show", folder.name, runs=tmp_path).stdout
    assert "done" in fluoro("status", runs=tmp_path).stdout
    answer = fluoro("query", folder.name, "select walk from norms", "--csv", runs=tmp_path)
    assert answer.stdout == "walk\nleft\nright\n"
    planned = fluoro("plan", "--run", folder.name, runs=tmp_path)
    assert "numbers" in planned.stdout


def test_a_changed_setting_and_a_damaged_file_end_with_exit_code_2(tmp_path: Path) -> None:
    first = fluoro("run", "toy", "--name", "a", runs=tmp_path, script=TOY)
    assert first.returncode == 0, first.stderr
    changed = fluoro("run", "toy", "seed=9", "--name", "a", runs=tmp_path, script=TOY)
    assert changed.returncode == 2
    assert "seed: 0 -> 9" in changed.stderr
    (tmp_path / "a" / "numbers" / "all.safetensors").write_bytes(b"")
    damaged = fluoro("run", "toy", "--name", "a", runs=tmp_path, script=TOY)
    assert damaged.returncode == 2
    assert "is damaged" in damaged.stderr
    assert "Traceback" not in changed.stderr + damaged.stderr


def test_a_plan_needs_no_run(tmp_path: Path) -> None:
    devices = ("--devices", "4xA100-80GB", "--devices", "L4")
    done = fluoro("plan", "toy", *devices, runs=tmp_path, script=TOY)
    assert done.returncode == 0, done.stderr
    assert "toy on 4 x A100-80GB" in done.stdout
    assert "toy on 1 x L4-24GB" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_detached_run_goes_on_by_itself_and_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluoroscope.runs.detach import start_detached

    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    folder = tmp_path / "away"
    command = [sys.executable, str(TOY), "run", "toy", "--name", "away", "pause_s=0.01"]
    said = start_detached(folder, command)
    assert "fluoro status away" in said
    until = time.monotonic() + 60
    while not (folder / "done.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert "walks: 2 shards" in (folder / "log.txt").read_text()


def test_a_detached_run_that_fails_at_once_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluoroscope.core.errors import RunError
    from fluoroscope.runs.detach import start_detached

    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    command = [sys.executable, str(TOY), "run", "toy", "--name", "away", "n_shard=1"]
    with pytest.raises(RunError, match="Did you mean 'n_shards'"):
        start_detached(tmp_path / "away", command)


def test_the_doctor_looks_at_what_a_run_stands_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluoroscope.runs.doctor import examine

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(tmp_path / "gone"))
    rows = {row["what"]: row for row in examine().to_dicts()}
    assert {"CPU", "memory", "GPUs", "runs", "torch", "transformers", "network"} <= rows.keys()
    assert rows["torch"]["state"] == "ok"
    assert rows["data"]["state"] == "problem"
    assert "HF_HUB_OFFLINE" in rows["network"]["found"]


def test_what_is_no_organism_is_named_and_nothing_is_half_done(tmp_path: Path) -> None:
    done = fluoro("organism", "check", str(tmp_path), runs=tmp_path)
    assert done.returncode == 2
    assert "holds no organism" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_ceiling_as_csv_has_a_row_for_each_direction() -> None:
    done = fluoro("organism", "check", "--ceiling", "--csv", "--n", "64")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.startswith("variable,direction,layer,match,")
    # Planted once, probed and random in every layer, for four variables.
    assert len(rows) == 4 * (1 + 6 + 6)
