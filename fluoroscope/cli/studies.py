"""`fluoro run` and `fluoro plan`: studies, and what they will cost."""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fluoroscope.cli.common import Overrides, print_frame
from fluoroscope.core.config import Config, build
from fluoroscope.runs.how import How
from fluoroscope.studies import SPECS, STUDIES
from fluoroscope.studies.settings import preset_files, study_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluoroscope.runs.step import MapStep

app = typer.Typer()

_OPEN = {"ignore_unknown_options": False, "help_option_names": []}

Study = Annotated[
    str | None, typer.Argument(metavar="STUDY", help=f"One of: {', '.join(STUDIES)}.")
]
Preset = Annotated[str | None, typer.Option(help="Settings that come with Fluoroscope, by name.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file of settings.")]
Help = Annotated[bool, typer.Option("--help", help="With a STUDY: every setting of it.")]


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
    until: Annotated[str | None, typer.Option(help="The last step, or phase, to do now.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Do this step or phase, and what it stands on; may be repeated."),
    ] = None,
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
    execute_study(study, spec, name, how, until=until, only=only or ())


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
    beside: Annotated[
        list[str] | None,
        typer.Option(help="A preset whose run shares each device; may be repeated."),
    ] = None,
    run_name: Annotated[
        str | None, typer.Option("--run", help="Set the estimate of a run beside what it used.")
    ] = None,
    help_: Help = False,
) -> None:
    """What a study will cost: time, memory, disk, and whether it fits; nothing is run."""
    if run_name is not None:
        from fluoroscope.runs.ledger import find_run
        from fluoroscope.runs.usage import used_vs_planned

        print_frame(used_vs_planned(find_run(run_name)), f"{run_name}: planned and used")
        return
    if help_ or study is None:
        _show_help(context, study)
        return
    spec = study_spec(study, preset, config, overrides or [])
    from fluoroscope.runs.hardware import parse_devices
    from fluoroscope.runs.plan import plan as make_plan
    from fluoroscope.runs.plan import shared_with

    loaded = STUDIES.load(study)()
    resolved: Any = loaded.sketch(spec)  # Any: the Config class of the study.
    threads = getattr(resolved, "threads", 1)
    others = [_steps_of(preset) for preset in beside or []]
    for name in devices or ["auto"]:
        device = shared_with(parse_devices(name, threads), others, workers)
        frame = make_plan(loaded.steps(resolved), [device], workers).drop("device", "flops")
        note = f" ({device.note})" if device.note else ""
        print_frame(frame, f"{study} on {device.count} x {device.name}{note}")


def _steps_of(preset: str) -> "Sequence[MapStep]":
    """The steps of a preset (`gambling/organism`), which names its study."""
    study = preset.partition("/")[0]
    loaded = STUDIES.load(study)()
    return loaded.steps(loaded.sketch(study_spec(study, preset, None, [])))


def execute_study(
    study: str,
    spec: Config,
    name: str,
    how: How,
    *,
    until: str | None = None,
    only: "Sequence[str]" = (),
) -> None:
    """Runs it in the foreground, with what happens on the standard error stream."""
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
                execute(
                    loaded(),
                    spec,
                    name,
                    how,
                    arguments=sys.argv[1:],
                    stop=stop,
                    until=until,
                    only=only,
                )
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
