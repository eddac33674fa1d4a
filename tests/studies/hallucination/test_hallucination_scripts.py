"""The plan's command lines: each is a thin shell over `fluoro`."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fluoroscope.core.config import build
from fluoroscope.core.errors import RunError
from fluoroscope.core.storage import write_json
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.manifest import report_is_done
from fluoroscope.runs.whole_folder import whole_folder
from fluoroscope.studies.hallucination.spec import HallucinationSpec
from fluoroscope.studies.hallucination.study import HallucinationStudy
from fluoroscope.studies.settings import preset_files

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = ROOT / "launch_model_analysis.sh"
JOB = ROOT / "jobs" / "gpt2_medium_full_pipeline.sbatch"
SCRIPTS = (
    "analysis/compare_models.py",
    "visualization/dashboard.py",
    "scripts/export_paper_results.py",
)


def script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell(*words, **environment):
    return subprocess.run(
        ["bash", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose first step is done."""
    settings = {
        "model": "organism",
        "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
        "data": {"name": "organism", "limit": 10},
        "answers": {"max_tokens": 4, "samples": 0},
    }
    root = tmp_path_factory.mktemp("runs")
    spec = build(HallucinationSpec, settings)
    study = HallucinationStudy()
    return execute(study, spec, "gpt2-small", How(devices="cpu"), root=root, only=["answers"])


@pytest.fixture
def at_runs(run, monkeypatch):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(run.folder.parent))


@pytest.mark.parametrize("file", [LAUNCH, JOB], ids=["launch", "job"])
def test_the_shell_scripts_parse_and_stop_at_the_first_failure(file):
    assert shell("-n", file).returncode == 0
    assert "\nset -euo pipefail\n" in file.read_text()
    failed = shell(file, "gpt2-small", FLUORO="false")
    assert failed.returncode == 1


def test_a_model_is_launched_by_its_preset_under_its_name():
    for given, presets in (
        (["gpt2-medium"], ["gpt2-medium"]),
        (["small"], ["gpt2-small"]),
        (["both"], ["gpt2-small", "gpt2-medium"]),
    ):
        done = shell(LAUNCH, *given, "seed=3", FLUORO="echo fluoro")
        assert done.returncode == 0
        assert done.stdout.splitlines() == [
            f"fluoro run hallucination --preset hallucination/{name} --name {name} seed=3"
            for name in presets
        ]
        assert all(f"hallucination/{name}" in preset_files() for name in presets)
    dry = shell(LAUNCH, "both", FLUORO="false", DRY_RUN="1")
    assert dry.returncode == 0
    assert len(dry.stderr.splitlines()) == 2


def test_a_model_that_is_not_there_is_answered_with_those_that_are():
    for words in (["gpt3"], []):
        done = shell(LAUNCH, *words, FLUORO="echo fluoro")
        assert done.returncode == 2
        assert "gpt2-small|gpt2-medium|both" in done.stderr
        assert done.stdout == ""


def test_the_job_is_one_command_with_a_worker_on_each_gpu():
    done = shell(JOB, FLUORO="echo fluoro", EXTRA="seed=3")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "fluoro run hallucination --preset hallucination/gpt2-medium --name gpt2-medium "
        "--executor processes --workers 4 --devices cuda:0,cuda:1,cuda:2,cuda:3 seed=3"
    ]
    two = shell(JOB, FLUORO="echo fluoro", GPUS="2")
    assert "--workers 2 --devices cuda:0,cuda:1\n" in two.stdout
    assert "#SBATCH --gres=gpu:4\n" in JOB.read_text()


def test_results_are_compared_whatever_they_are_called(run, at_runs):
    found = script(SCRIPTS[0]).words(
        ["--small", "./results/gpt2-small", "--medium", str(run.folder), "--csv"]
    )
    assert found == ["compare", str(run.folder), str(run.folder), "--csv"]
    with pytest.raises(RunError, match="results/gpt2-medium is neither a run"):
        script(SCRIPTS[0]).words(["--small", "gpt2-small", "--medium", "./results/gpt2-medium"])


def test_the_dashboard_writes_the_report_anew_and_prints_where_it_is(run, at_runs):
    page = run.folder / "report.html"
    page.unlink(missing_ok=True)
    assert script(SCRIPTS[1]).written_report("./results/gpt2-small") == page
    assert "What was judged" in page.read_text(encoding="utf-8")


def test_a_finished_run_is_finished_after_its_dashboard(run, at_runs, tmp_path, monkeypatch):
    folder = tmp_path / "gpt2-small"
    shutil.copytree(run.folder, folder)
    write_json(folder / "done.json", {"inputs": {"answers": "1"}, "files": {"report.html": "old"}})
    page = script(SCRIPTS[1]).written_report(str(folder))
    assert report_is_done(folder, {"answers": "1"})
    page.write_text("other")
    assert not report_is_done(folder, {"answers": "1"})


def test_a_paper_gets_what_fluoro_exports(run, at_runs):
    commands = script(SCRIPTS[2]).commands
    line = ["--model", "gpt2-small", "--output", "./paper/results/"]
    assert commands(line) == [["export", str(run.folder), "--to", "./paper/results/"]]
    paper, seed = commands([*line, "--seed-files"])
    assert paper == commands(line)[0]
    beside = Path("paper/results-seed").resolve()
    assert seed == ["hallucination", "export", str(run.folder), "--out", str(beside)]


def test_a_paper_gets_the_plans_own_files_a_second_time(run, at_runs, tmp_path, monkeypatch):
    """What writes the paper's folder is replaced by its heart, for this run has no whole report."""
    to, files = tmp_path / "results", {}

    def fluoro():
        words = sys.argv[1:]
        if words[0] == "export":
            with whole_folder(Path(words[words.index("--to") + 1]), "made.json", "made") as folder:
                write_json(folder / "made.json", {"format": "made", "files": {}})
        else:
            folder = Path(words[words.index("--out") + 1])
            folder.mkdir(exist_ok=True)
            (folder / "final_report.json").write_text("{}")

    module = script(SCRIPTS[2])
    monkeypatch.setattr(module, "fluoro", fluoro)
    line = ["export", "--model", "gpt2-small", "--output", str(to), "--seed-files"]
    for time in range(2):
        monkeypatch.setattr(sys, "argv", line)
        module.main()
        files[time] = sorted(path.name for path in tmp_path.rglob("*"))
    assert files[0] == files[1] == ["final_report.json", "made.json", "results", "results-seed"]


@pytest.mark.parametrize("path", SCRIPTS)
def test_no_script_shows_a_traceback_for_what_can_be_mended(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    words = {
        SCRIPTS[0]: ["--small", "no-run", "--medium", "no-run"],
        SCRIPTS[1]: ["--results", "no-run"],
        SCRIPTS[2]: ["--model", "no-run", "--output", str(tmp_path)],
    }[path]
    monkeypatch.setattr(sys, "argv", [path, *words])
    with pytest.raises(SystemExit, match="no-run is neither a run"):
        script(path).main()


@pytest.mark.parametrize("path", [*SCRIPTS, LAUNCH, JOB])
def test_no_script_knows_a_path_or_a_gpu(path):
    text = (ROOT / path).read_text()
    assert "/home/" not in text
    assert "CUDA_VISIBLE_DEVICES" not in text


def test_the_citation_is_what_its_format_asks():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["cff-version"] == "1.2.0"
    assert found["message"]
    assert found["authors"] == [{"name": "Fluoroscope developers"}]
    assert found["license"] == "Apache-2.0"
    assert found["title"].startswith("Fluoroscope")
