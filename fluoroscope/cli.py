"""`fluoro`: the command line, thin over `runs` and `studies`.

Only what a command needs is imported, inside the command: help answers without torch. What the
user can mend (`UserError`) is a message and exit code 2; Ctrl-C says how to go on.
"""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import fluoroscope
from fluoroscope.core.config import (
    Config,
    Settings,
    build,
    merge_settings,
    parse_overrides,
    read_settings,
)
from fluoroscope.core.errors import ConfigError, UserError
from fluoroscope.core.registry import nearest
from fluoroscope.runs.how import How
from fluoroscope.studies import SPECS, STUDIES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Fluoroscope: see inside a language model while it runs, and steer it.",
)

_OPEN = {"ignore_unknown_options": False, "help_option_names": []}
_PRESETS = Path(__file__).parent / "presets"

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
        Console(stderr=True).print(f"{error}", style="red", markup=False, highlight=False)
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
    spec = _spec(study, preset, config, overrides or [])
    name = name or _default_name(study, spec)
    if detach:
        from fluoroscope.runs.detach import start_detached

        typer.echo(start_detached(name, [word for word in sys.argv[1:] if word != "--detach"]))
        return
    _execute(study, spec, name, how)


def _execute(study: str, spec: Config, name: str, how: How) -> None:
    # The message first: torch takes seconds to import, and silence looks like a hang.
    from fluoroscope.runs.start import runs_root
    from fluoroscope.runs.terminal import Terminal

    console = Console(stderr=True)
    folder = runs_root() / name
    console.print(f"Run {name} in {folder}", highlight=False, markup=False)
    from fluoroscope.runs.engine import execute
    from fluoroscope.runs.interrupt import stop_on_signals

    try:
        with stop_on_signals(_leave) as stop, Terminal(folder, console):
            loaded = STUDIES.load(study)
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
    from fluoroscope.runs.start import default_name

    return default_name(study, spec)


def _spec(study: str, preset: str | None, file: Path | None, overrides: list[str]) -> Config:
    """The settings of a preset, a file and the command line, each over the one before."""
    kind = SPECS.load(study)
    settings: Settings = {}
    if preset is not None:
        settings = read_settings(_preset_file(study, preset))
    if file is not None:
        settings = merge_settings(settings, read_settings(file))
    return build(kind, merge_settings(settings, parse_overrides(overrides)))


def _preset_file(study: str, preset: str) -> Path:
    names = {
        path.relative_to(_PRESETS).with_suffix("").as_posix(): path
        for path in sorted(_PRESETS.rglob("*.yaml"))
    }
    for name in (preset, f"{study}/{preset}"):
        if name in names:
            return names[name]
    raise ConfigError(
        f"Preset {preset!r} does not exist.{nearest(preset, list(names))} "
        f"There are: {', '.join(names) or 'none'}."
    )


def _show_help(context: typer.Context, study: str | None) -> None:
    typer.echo(context.get_help())
    if study is not None:
        from fluoroscope.runs.settings_help import settings_text

        console = Console()
        console.print(settings_text(study, SPECS.load(study)))
        names = [p.relative_to(_PRESETS).with_suffix("") for p in _PRESETS.rglob("*.yaml")]
        mine = sorted(name.as_posix() for name in names if name.parts[0] == study)
        console.print(f"Presets: {', '.join(mine) or 'none'}", highlight=False)
