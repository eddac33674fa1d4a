"""Runs beside each other: rows are matched by what they are of, and nothing is paired by chance."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from finished_runs import METHODS, finished_run
from typer.testing import CliRunner

from fluoroscope.cli import app
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import read_json, sha256_folder, write_json
from fluoroscope.runs.compare import (
    Comparison,
    brief,
    compare_runs,
    joined_tables,
    write_comparison,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder, "one")
    finished_run(folder, "two", shift=0.05, seed=2)
    return folder


def tables(report: Comparison) -> dict[str, pl.DataFrame]:
    parts = [part for part in report.shown if isinstance(part, tuple)]
    return {name.partition(":")[0]: frame for name, frame in parts}


def test_a_comparison_shows_settings_that_differ_facts_and_tables(root):
    runs = [root / "one", root / "two"]
    report = Comparison(runs)
    compare_runs(runs, report)
    found = tables(report)
    assert found["settings"].rows() == [("seed", "0", "2")]
    assert ("bankrupt", "63.7%", "63.7%") in found["facts"].rows()
    rows = found["of_methods"].filter(pl.col("quantity") == "auroc").to_dicts()
    assert rows[1] == {
        "method": "baseline + tracking",
        "quantity": "auroc",
        "one": "0.821 (0.755 to 0.89)",
        "two": "0.871 (0.805 to 0.94)",
        "difference": pytest.approx(0.05),
    }


def test_rows_in_another_order_are_matched_by_name_and_those_of_one_run_are_counted():
    other = METHODS.reverse().with_columns(pl.col("auroc") + 1).head(2)
    joined, note = joined_tables([METHODS, other], ["a", "b"])
    assert joined.filter(pl.col("quantity") == "auroc")["difference"].round(9).to_list() == [1, 1]
    assert joined["method"].unique(maintain_order=True).to_list() == METHODS["method"][1:].to_list()
    assert note == "1 rows are not in every run."


def test_three_runs_are_all_compared_with_the_first():
    frames = [METHODS, METHODS.with_columns(pl.col("brier") + 1), METHODS]
    joined, _ = joined_tables(frames, ["a", "b", "quantity"])
    found = joined.filter(pl.col("quantity") == "brier")
    assert found["b difference"].round(9).to_list() == [1, 1, 1]
    assert found["run quantity difference"].to_list() == [0, 0, 0]


def test_tables_that_cannot_be_matched_are_left_out():
    one, other = pl.DataFrame({"x": [0.1, 0.2]}), pl.DataFrame({"x": [0.1]})
    assert len(joined_tables([one, other], ["a", "b"])[0]) == 0
    assert joined_tables([one, one], ["a", "b"])[0]["row"].to_list() == [0, 1]


def test_an_estimate_and_its_interval_are_one_cell_in_a_terminal():
    frame = pl.DataFrame({"x": [0.5, 1.0], "x_low": [0.25, None], "x_high": [0.75, None]})
    assert brief(frame)["x"].to_list() == ["0.5 (0.25 to 0.75)", "1"]


def test_runs_of_two_studies_are_refused_by_name(root, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(root / "one", other)
    write_json(other / "run.json", {**read_json(other / "run.json"), "study": "anatomy"})
    with pytest.raises(ConfigError, match="one of toy, other of anatomy"):
        Comparison([root / "one", other])


def test_a_run_is_not_compared_with_itself_nor_alone(root):
    with pytest.raises(ConfigError, match="with others than itself"):
        Comparison([root / "one", root / "one"])
    with pytest.raises(ConfigError, match="Two runs or more"):
        Comparison([root / "one"])


def test_a_written_comparison_is_whole_and_takes_no_foreign_place(root, tmp_path):
    runs = [root / "one", root / "two"]
    report = Comparison(runs)
    compare_runs(runs, report)
    write_comparison(report, runs, tmp_path / "to")
    first = sha256_folder(tmp_path / "to")
    assert {"report.html", "comparison.json", "tables/of_methods.csv"} <= first.keys()
    write_comparison(report, runs, tmp_path / "to")
    assert sha256_folder(tmp_path / "to") == first
    (tmp_path / "to" / "report.html").write_text("changed")
    with pytest.raises(ConfigError, match=r"report\.html was changed"):
        write_comparison(report, runs, tmp_path / "to")


def test_the_commands_compare_and_export(root, tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(root))
    to = tmp_path / "side"
    done = CliRunner().invoke(app, ["compare", "one", "two", "--to", str(to)])
    assert done.exit_code == 0, done.output
    assert "baseline + tracking" in done.output
    assert (to / "report.html").exists()
    done = CliRunner().invoke(app, ["export", "one", "--to", str(tmp_path / "paper")])
    assert done.exit_code == 0, done.output
    assert "Tables: 3; figures: 1;" in done.output
    assert "and 7 have none" in done.output
