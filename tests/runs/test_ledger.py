"""What can be asked of runs afterwards."""

from pathlib import Path

import polars
import pytest
from rich.console import Console
from toy_runs import run_toy

from fluoroscope.core.errors import ConfigError, DamagedError, RunError
from fluoroscope.runs.how import How
from fluoroscope.runs.ledger import (
    find_run,
    latest_runs,
    list_runs,
    query,
    show,
)
from fluoroscope.runs.lock import main_lock
from fluoroscope.runs.status import status_text


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run_toy(folder, "one")
    run_toy(folder, "two", seed=2)
    with pytest.raises(RunError):
        run_toy(folder, "broken", misbehave="raise:left@3", how=How(retries=0))
    return folder


def test_the_list_tells_what_is_done_and_what_failed(root: Path) -> None:
    rows = {row["run"]: row for row in list_runs(root).to_dicts()}
    assert {name: row["state"] for name, row in rows.items()} == {
        "one": "done",
        "two": "done",
        "broken": "failed",
    }
    assert rows["broken"]["steps_done"] == "1/2"
    assert all(row["seconds"] > 0 for row in rows.values())


def test_a_run_that_is_worked_on_is_the_latest(root: Path) -> None:
    with main_lock(root / "one"):
        assert latest_runs(root) == ["one"]
        assert "working (process" in _status(root / "one")


def test_an_unknown_run_names_the_nearest(root: Path) -> None:
    with pytest.raises(RunError, match=r"Did you mean 'broken'\? There are: broken, one, two"):
        find_run("brokn", root)


def test_a_run_is_found_by_its_path_too(root: Path) -> None:
    assert find_run(str(root / "two"), Path("elsewhere")) == root / "two"


def test_a_record_that_is_not_one_is_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"study": 3}')
    with pytest.raises(DamagedError, match=r"run\.json is not one that this version writes"):
        show(tmp_path)


def test_show_tells_settings_steps_and_tables(root: Path) -> None:
    about = show(root / "two")
    assert about["settings"]["seed"] == 2
    assert about["settings"]["nested.width"] == 8
    assert about["steps"] == {"numbers": True, "walks": True}
    assert about["tables"] == ["norms.csv"]
    assert about["provenance"]["packages.torch"]


def test_sql_reads_events_tables_and_parquet_of_all_shards(root: Path) -> None:
    folder = root / "one"
    for part in ("part-0", "part-1"):
        frame = polars.DataFrame({"row": [1, 2]})
        frame.write_parquet(folder / "numbers" / "shards" / part / "index.parquet")
    assert query(folder, "select count(*) as n from index").item() == 4
    assert query(folder, "select walk from norms order by walk").rows() == [("left",), ("right",)]
    metrics = "select count(*) from events where event = 'metrics'"
    assert query(folder, metrics).item() == 80


@pytest.mark.parametrize("sql", ["selec 1", "select * from nowhere", "select nothing from norms"])
def test_sql_that_cannot_be_answered_names_the_tables(root: Path, sql: str) -> None:
    with pytest.raises(ConfigError, match="Run two has the tables: events, norms"):
        query(root / "two", sql)


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to 'FILE'",
        "explain analyze copy (select 1) to 'FILE'",
        "select 1; copy (select 1) to 'FILE'",
        "create table x as select 1",
        "attach 'FILE'",
        "",
    ],
)
def test_sql_only_reads(root: Path, tmp_path: Path, sql: str) -> None:
    file = tmp_path / "written"
    with pytest.raises(ConfigError, match="by one SELECT"):
        query(root / "one", sql.replace("FILE", str(file)))
    assert not file.exists()


def test_sql_passes_over_a_file_that_cannot_be_read(root: Path) -> None:
    bad = root / "two" / "numbers" / "bad.parquet"
    bad.write_bytes(b"not parquet")
    assert query(root / "two", "select 1 as one").item() == 1
    with pytest.raises(ConfigError, match="cannot be read: bad"):
        query(root / "two", "select * from bad")
    bad.unlink()


def test_a_damaged_run_hides_no_other(root: Path) -> None:
    folder = root / "torn"
    folder.mkdir()
    (folder / "run.json").write_text("{")
    runs = list_runs(root)
    assert runs.filter(polars.col("run") == "torn")["state"].to_list() == ["damaged"]
    assert runs.height > 1
    assert "torn" not in latest_runs(root)
    with pytest.raises(DamagedError, match="another --name"):
        show(folder)
    (folder / "run.json").unlink()
    folder.rmdir()


def test_status_says_how_far_and_why_it_stopped(root: Path) -> None:
    text = _status(root / "broken")
    assert "broken: failed" in text
    assert "1 of 2 shards of step walks failed" in text
    assert "1/2" in text
    assert "two: done" in _status(root / "two")


def _status(folder: Path) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(status_text(folder))
    return captured.get()
