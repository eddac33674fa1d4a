"""`fluoro`: the command line, thin over `runs` and `studies`.

Only what a command needs is imported, inside the command: help answers without torch. What the
user can mend (`UserError`) is a message and exit code 2; Ctrl-C says how to go on.
"""

import os
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import fluoroscope
from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import UserError
from fluoroscope.runs.how import How
from fluoroscope.studies import SPECS, STUDIES
from fluoroscope.studies.settings import preset_files, study_spec

if TYPE_CHECKING:
    from polars import DataFrame

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Fluoroscope: see inside a language model while it runs, and steer it.",
)

organism_app = typer.Typer(
    no_args_is_help=True,
    help="The model that ships with Fluoroscope, whose inside is known.",
)
app.add_typer(organism_app, name="organism")

_OPEN = {"ignore_unknown_options": False, "help_option_names": []}

MAX_ROWS = 100
"""Rows of a table that are shown in a terminal."""

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="key=value...", help="Settings of the study.")
]
Study = Annotated[
    str | None, typer.Argument(metavar="STUDY", help=f"One of: {', '.join(STUDIES)}.")
]
Preset = Annotated[str | None, typer.Option(help="Settings that come with Fluoroscope, by name.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file of settings.")]
Help = Annotated[bool, typer.Option("--help", help="With a STUDY: every setting of it.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or its folder.")]


def main() -> None:
    """Entry point: turns what users can mend into a message and an exit code."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        text = Text(str(error), style="red")
        Console(stderr=True).print(text, soft_wrap=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _fluoro(
    version: Annotated[bool, typer.Option("--version", help="Say the version and end.")] = False,
) -> None:
    if version:
        typer.echo(f"fluoroscope {fluoroscope.__version__}")
        raise typer.Exit


@app.command(context_settings=_OPEN)
def run(
    context: typer.Context,
    study: Study = None,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Default: study and a hash of settings.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    executor: Annotated[str, typer.Option(help="local, processes or ray.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Workers at once.")] = None,
    devices: Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1.")] = "auto",
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster to join.")] = None,
    checkpoint_s: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 60.0,
    retries: Annotated[int, typer.Option(help="Tries again of a shard that failed.")] = 1,
    check_fit: Annotated[bool, typer.Option(help="Refuse what cannot fit.")] = True,
    verify: Annotated[bool, typer.Option(help="Check the SHA-256 of finished work.")] = True,
    detach: Annotated[bool, typer.Option(help="Give the terminal back; log to a file.")] = False,
    help_: Help = False,
) -> None:
    """Run a study, or go on with it: the same name and settings continue where they stopped."""
    if help_ or study is None:
        _show_help(context, study)
        return
    how = build(
        How,
        {
            "executor": executor,
            "workers": workers,
            "devices": devices,
            "ray_address": ray_address,
            "checkpoint_s": checkpoint_s,
            "retries": retries,
            "check_fit": check_fit,
            "verify": verify,
        },
    )
    spec = study_spec(study, preset, config, overrides or [])
    name = name or _default_name(study, spec)
    if detach:
        from fluoroscope.runs.detach import start_detached
        from fluoroscope.runs.record import check_name, runs_root

        check_name(name, "Run")
        words = [word for word in sys.argv[1:] if word != "--detach"]
        command = [sys.executable, "-m", "fluoroscope", *words]
        typer.echo(start_detached(runs_root() / name, command))
        return
    _execute(study, spec, name, how)


@app.command(context_settings=_OPEN)
def plan(
    context: typer.Context,
    study: Study = None,
    overrides: Overrides = None,
    preset: Preset = None,
    config: ConfigFile = None,
    devices: Annotated[
        list[str] | None, typer.Option(help="4xA100-80GB, cpu, cuda:0...; may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Workers that share a CPU.")] = 1,
    run_name: Annotated[
        str | None, typer.Option("--run", help="Set the estimate of a run beside what it used.")
    ] = None,
    help_: Help = False,
) -> None:
    """What a study will cost: time, memory, disk, and whether it fits; nothing is run."""
    if run_name is not None:
        from fluoroscope.runs.ledger import find_run
        from fluoroscope.runs.usage import used_vs_planned

        _print_frame(used_vs_planned(find_run(run_name)), f"{run_name}: planned and used")
        return
    if help_ or study is None:
        _show_help(context, study)
        return
    spec = study_spec(study, preset, config, overrides or [])
    from fluoroscope.runs.hardware import parse_devices
    from fluoroscope.runs.plan import plan as make_plan

    loaded = STUDIES.load(study)()
    resolved: Any = loaded.resolve(spec)  # Any: the Config class of the study.
    threads = getattr(resolved, "threads", 1)
    for name in devices or ["auto"]:
        device = parse_devices(name, threads)
        frame = make_plan(loaded.steps(resolved), [device], workers).drop("device", "flops")
        note = f" ({device.note})" if device.note else ""
        _print_frame(frame, f"{study} on {device.count} x {device.name}{note}")


@app.command(name="list")
def list_() -> None:
    """All runs, the latest first."""
    from fluoroscope.runs.ledger import list_runs
    from fluoroscope.runs.record import runs_root

    _print_frame(list_runs(), f"Runs in {runs_root()}")


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
        _print_frame(polars.DataFrame(rows, schema=schema, orient="row"))
    for name in about["tables"]:
        table = polars.read_csv(folder / "tables" / name, infer_schema_length=None)
        _print_frame(table, f"tables/{name}")


@app.command()
def compare(first: RunName, second: RunName) -> None:
    """Two runs: the settings in which they differ, and their tables side by side."""
    from fluoroscope.runs.ledger import compare_settings, compare_tables, find_run

    a, b = find_run(first), find_run(second)
    settings = compare_settings(a, b)
    _print_frame(settings, "Settings that differ" if settings.height else "The same settings")
    for name, table in compare_tables(a, b).items():
        _print_frame(table, f"tables/{name}.csv")


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
    _print_frame(frame)
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

    _print_rows(run_query(find_run(run_name), sql), csv)


@organism_app.command(name="train")
def organism_train(
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "organism",
    checkpoint_s: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 60.0,
    check_fit: Annotated[bool, typer.Option(help="Refuse what cannot fit.")] = True,
) -> None:
    """Make the organism anew from its seed; the same command goes on after Ctrl-C or a kill."""
    how = build(How, {"checkpoint_s": checkpoint_s, "check_fit": check_fit, "devices": "cpu"})
    _execute("organism", study_spec("organism", None, None, overrides or []), name, how)


@organism_app.command(name="check")
def organism_check(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER", help="An organism's folder.")
    ] = "organism",
    n: Annotated[int, typer.Option(min=64, help="Prompts of each kind.")] = 512,
    ceiling: Annotated[
        bool, typer.Option("--ceiling", help="Score planted, probed and random directions.")
    ] = False,
    saes: Annotated[
        bool, typer.Option("--saes", help="Score the best latents of the SAEs that come with it.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows as csv.")] = False,
) -> None:
    """Measure an organism against what its world says; exit code 1 where it falls short."""
    from fluoroscope.organism import recovery
    from fluoroscope.organism.check import as_frame, check
    from fluoroscope.organism.shipping import load, load_truth
    from fluoroscope.organism.trials import Trials

    if ceiling:
        _print_rows(recovery.ceiling(Trials(load_truth(model), n // 2)), csv)
    if saes:
        organism = load(model)
        _print_rows(recovery.recovered_by(organism.saes, Trials(organism.truth, n // 2)), csv)
    if ceiling or saes:
        return
    checks = check(load_truth(model), n)
    _print_rows(as_frame(checks), csv)
    if not all(one.passed for one in checks):
        raise typer.Exit(1)


def _print_rows(frame: "DataFrame", csv: bool) -> None:
    """All rows for a program, or as many as a person reads."""
    if csv:
        from fluoroscope.runs.tables import flat

        typer.echo(flat(frame).write_csv(), nl=False)
        return
    _print_frame(frame, more="--csv prints them all")


def _print_frame(
    frame: "DataFrame", title: str | None = None, more: str = "the file has them all"
) -> None:
    from fluoroscope.runs.tables import frame_table

    # A pipe has no width, and must not cut what a program reads.
    console = Console(width=None if sys.stdout.isatty() else 250)
    console.print(frame_table(frame.head(MAX_ROWS), title))
    if frame.height > MAX_ROWS:
        typer.echo(f"The first {MAX_ROWS} of {frame.height:,} rows; {more}.")


def _execute(study: str, spec: Config, name: str, how: How) -> None:
    from fluoroscope.runs.interrupt import stop_on_signals
    from fluoroscope.runs.record import runs_root
    from fluoroscope.runs.terminal import Terminal

    console = Console(stderr=True)
    folder = runs_root() / name
    try:
        with stop_on_signals(_leave) as stop:
            # The message first: torch takes seconds to import, and silence looks like a hang.
            console.print(f"Run {name} in {folder}", highlight=False, markup=False)
            from fluoroscope.runs.engine import execute

            loaded = STUDIES.load(study)
            with Terminal(folder, console):
                execute(loaded(), spec, name, how, arguments=sys.argv[1:], stop=stop)
    except KeyboardInterrupt:
        _leave(signal.SIGINT)
    report = folder / "report.html"
    typer.echo(f"Done: {report if report.exists() else folder}")


def _leave(number: int) -> None:
    """Says how to go on and ends at once: whatever still holds on is safe to be cut off."""
    command = shlex.join(["fluoro", *sys.argv[1:]])
    show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    os.write(2, f"{show_cursor}Stopped. Go on with: {command}\n".encode())
    os._exit(128 + number)


def _default_name(study: str, spec: Config) -> str:
    from fluoroscope.runs.record import default_name

    return default_name(study, spec)


def _show_help(context: typer.Context, study: str | None) -> None:
    typer.echo(context.get_help())
    if study is not None:
        from fluoroscope.runs.settings_help import settings_text

        console = Console()
        console.print(settings_text(study, SPECS.load(study)))
        mine = [name for name in preset_files() if name.startswith(f"{study}/")]
        console.print(f"Presets: {', '.join(mine) or 'none'}", highlight=False)
