"""What became of runs: `fluoro list`, `show`, `status`, `query`; and `fluoro doctor`."""

import time
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from fluoroscope.cli.common import RunName, print_frame, print_rows

app = typer.Typer()


@app.command(name="list")
def list_() -> None:
    """All runs, the latest first."""
    from fluoroscope.runs.ledger import list_runs
    from fluoroscope.runs.record import runs_root

    print_frame(list_runs(), f"Runs in {runs_root()}")


@app.command()
def show(run_name: RunName) -> None:
    """One run: what it is, how far it is, where its results are."""
    import polars

    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.ledger import show as show_run

    folder = find_run(run_name)
    about = show_run(folder)
    for key in ("run", "folder", "study", "state", "command", "report"):
        typer.echo(f"{key:9s} {about[key] if about[key] is not None else '-'}")
    for key in ("settings", "provenance"):
        rows = [(name, str(value)) for name, value in about[key].items()]
        schema = {key: polars.String, "value": polars.String}
        print_frame(polars.DataFrame(rows, schema=schema, orient="row"))
    for name in about["tables"]:
        table = polars.read_csv(folder / "tables" / name, infer_schema_length=None)
        print_frame(table, f"tables/{name}")


@app.command()
def status(
    run_name: Annotated[str | None, typer.Argument(metavar="[RUN]")] = None,
    follow: Annotated[bool, typer.Option(help="Keep showing it, until Ctrl-C.")] = False,
) -> None:
    """How far a run is: steps, rate, time left, devices, disk. Default: those at work."""
    from fluoroscope.runs.ledger import find_run, latest_runs
    from fluoroscope.runs.status import status_text

    names = [run_name] if run_name is not None else latest_runs()
    folders = [find_run(name) for name in names]
    console = Console()
    if not folders:
        console.print("There are no runs yet.")
    if not follow:
        for folder in folders:
            console.print(status_text(folder))
        return
    from rich.console import Group
    from rich.live import Live

    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Group(*(status_text(folder) for folder in folders)), refresh=True)
            time.sleep(1)


@app.command()
def doctor() -> None:
    """The check before a long run: devices, memory, disk, versions, network."""
    from fluoroscope.runs.doctor import examine

    frame = examine()
    print_frame(frame)
    if "problem" in frame["state"].to_list():
        raise typer.Exit(1)


@app.command()
def query(
    run_name: RunName,
    sql: Annotated[str, typer.Argument(metavar="SQL", help='"select * from events"')],
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows as csv.")] = False,
) -> None:
    """SQL (duckdb) over a run: events, its tables and its parquet files, by their names."""
    from fluoroscope.runs.ledger import find_run
    from fluoroscope.runs.ledger import query as run_query

    print_rows(run_query(find_run(run_name), sql), csv)
