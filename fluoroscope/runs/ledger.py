"""All runs as one table; one run at a glance; two side by side; SQL over a run's files."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import polars

from fluoroscope.core.errors import ConfigError, DamagedError, RunError
from fluoroscope.core.registry import nearest
from fluoroscope.runs.events import FILE as EVENTS
from fluoroscope.runs.events import read_events
from fluoroscope.runs.lock import working_process
from fluoroscope.runs.record import FILE, flatten, read_record, runs_root
from fluoroscope.runs.run import DONE

RUN_SCHEMA = {
    "run": polars.String,
    "study": polars.String,
    "state": polars.String,
    "steps_done": polars.String,
    "started": polars.String,
    "seconds": polars.Float64,
}


def find_run(name: str, root: Path | None = None) -> Path:
    """The folder of a run by its name under the runs' root, or by its path."""
    root = root or runs_root()
    for folder in (root / name, Path(name)):
        if (folder / FILE).exists():
            return folder
    names = [path.parent.name for path in sorted(root.glob(f"*/{FILE}"))]
    raise RunError(
        f"There is no run {name!r} in {root}.{nearest(name, names)} "
        f"There are: {', '.join(names) or 'none'}."
    )


def list_runs(root: Path | None = None) -> polars.DataFrame:
    """A row for every run below `root`, the latest first."""
    rows: list[dict[str, object]] = []
    for file in (root or runs_root()).glob(f"*/{FILE}"):
        folder = file.parent
        try:
            record = read_record(folder)
        except DamagedError:
            # One bad folder must not hide all other runs; `show` says what is wrong with it.
            rows.append({"run": folder.name, "state": "damaged"})
            continue
        done = sum((folder / step.name / DONE).exists() for step in record.steps)
        rows.append(
            {
                "run": folder.name,
                "study": record.study,
                "state": run_state(folder),
                "steps_done": f"{done}/{len(record.steps)}",
                "started": record.provenance.get("started"),
                "seconds": worked_seconds(folder),
            }
        )
    return polars.DataFrame(rows, schema=RUN_SCHEMA).sort(
        "started", "run", descending=True, nulls_last=True
    )


def latest_runs(root: Path | None = None) -> list[str]:
    """The runs that are worked on now; if none is, the one that was started last."""
    runs = list_runs(root)
    working = runs.filter(polars.col("state") == "working")["run"].to_list()
    whole = runs.filter(polars.col("state") != "damaged")
    return working or whole["run"].head(1).to_list()


def run_state(folder: Path) -> str:
    """`done`, `working`, `failed` (see its last event) or `stopped`."""
    if working_process(folder):
        return "working"
    if (folder / DONE).exists():
        return "done"
    ends = read_events(folder, "run started", "run failed")
    return "failed" if ends and ends[-1]["event"] == "run failed" else "stopped"


def worked_seconds(folder: Path) -> float:
    """Time at work over all starts; a killed one counts to its last event."""
    total, began, latest = 0.0, None, 0.0
    for event in read_events(folder):
        if event["event"] == "run started":
            total += latest - began if began is not None else 0.0
            began = event["time"]
        latest = event["time"]
    return total + (latest - began if began is not None else 0.0)


def show(folder: Path) -> dict[str, Any]:  # Any: JSON values.
    """What a run is, how far it is, and where its results are."""
    record = read_record(folder)
    return {
        "run": folder.name,
        "folder": str(folder),
        "study": record.study,
        "state": run_state(folder),
        "command": " ".join(["fluoro", *record.arguments]) if record.arguments else None,
        "settings": dict(flatten(record.spec)),
        "provenance": dict(flatten(record.provenance)),
        "steps": {step.name: (folder / step.name / DONE).exists() for step in record.steps},
        "tables": [path.name for path in sorted((folder / "tables").glob("*.csv"))],
        "report": str(folder / "report.html") if (folder / "report.html").exists() else None,
    }


def query(folder: Path, sql: str) -> polars.DataFrame:
    """SQL over a run: `events`, and a view for each csv table and parquet file by its name."""
    views, readable = run_views(folder), list[str]()
    with duckdb.connect() as connection:
        for name, source in views.items():
            # A file that is damaged, or empty as yet, must not stand in the way of the others.
            with suppress(duckdb.Error):
                connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM {source}')
                readable.append(name)
        try:
            _check_reads_only(connection.extract_statements(sql), sql)
            return connection.sql(sql).pl()
        except duckdb.Error as error:
            unread = ", ".join(sorted(views.keys() - set(readable)))
            tables = ", ".join(sorted(readable)) or "none"
            raise ConfigError(
                f"{error}\nRun {folder.name} has the tables: {tables}."
                f"{f' These cannot be read: {unread}.' if unread else ''}"
            ) from None


def _check_reads_only(statements: Sequence[duckdb.Statement], sql: str) -> None:
    # COPY and ATTACH write files wherever they like, also over those of the run; EXPLAIN ANALYZE
    # does what it explains.
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise ConfigError(f"A query reads, by one SELECT; got {sql!r}.")


def run_views(folder: Path) -> dict[str, str]:
    """View name -> what duckdb reads for it; files of one name in many shards are one view."""
    views: dict[str, str] = {}
    if (folder / EVENTS).exists():
        # A line that a kill has torn is passed over; columns differ from event to event.
        options = "format='newline_delimited', ignore_errors=true, union_by_name=true"
        views["events"] = f"read_json_auto({_quoted(folder / EVENTS)}, {options}, sample_size=-1)"
    for path in sorted(folder.glob("tables/*.csv")):
        views[_free(path.stem, "tables", views)] = f"read_csv_auto({_quoted(path)})"
    for path in sorted(folder.glob("*/*.parquet")):
        views[_free(path.stem, path.parent.name, views)] = f"read_parquet({_quoted(path)})"
    sharded = {(p.parents[2].name, p.name) for p in folder.glob("*/shards/*/*.parquet")}
    for step, name in sorted(sharded):
        files = _quoted(folder / step / "shards" / "*" / name)
        source = f"read_parquet({files}, filename='file', union_by_name=true)"
        views[_free(Path(name).stem, step, views)] = source
    return views


def _free(stem: str, step: str, taken: dict[str, str]) -> str:
    name = re.sub(r"\W", "_", stem)
    return name if name not in taken else re.sub(r"\W", "_", f"{step}_{stem}")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
