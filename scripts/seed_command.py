"""What the seed's command lines share: one `fluoro run gambling`, then its results as their files.

The same command goes on where it stopped. Whatever stands behind the options as key=value is a
setting of the study (`fluoro run gambling --help` lists them).
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fluoroscope.cli import main as fluoro
from fluoroscope.core.errors import ConfigError, UserError
from fluoroscope.runs.record import runs_root
from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.seed_files.games import games_json
from fluoroscope.studies.gambling.seed_files.writing import games_name, place, write_seed_files
from fluoroscope.studies.gambling.steps.play import read_attempts, read_games

LLAMA, LLAMA_SAES = "gambling/llama-3.1-8b", "fnlp/Llama3_1-8B-Base-LXR-8x"
GEMMA = "gambling/gemma-2-9b"
ORGANISM, ORGANISM_SAES = "gambling/organism", "organism:batch_topk"

RETRIES = {"play.retries.only_empty": "true", "play.retries.max_attempts": 1000}
"""The plan's "infinite retry" of empty replies."""

Contents = Callable[[Run], Mapping[str, Any]]  # Any: JSON values.


def seed_parser(text: str, preset: str = LLAMA) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu_id", default="auto", help="2, several as 2,4, cpu or auto")
    parser.add_argument("--model", help="organism, a folder or a hub id; the preset's by default")
    parser.add_argument("--preset", help=f"settings to begin with (default: {preset}, or organism)")
    parser.add_argument("--log", help="games that were played before, as JSON files")
    parser.add_argument("--name", help="of the run")
    parser.add_argument("--out", type=Path, help="folder of the files (default: in the run)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings")
    parser.set_defaults(default_preset=preset)
    return parser


def command(options: argparse.Namespace, name: str, settings: Mapping[str, object]) -> list[str]:
    """The words behind `fluoro`; settings given by the user come last, and win."""
    is_organism = options.model == "organism"
    preset = options.preset or (ORGANISM if is_organism else options.default_preset)
    words = ["run", "gambling", "--preset", preset, "--name", options.name or name]
    words += ["--devices", devices(options.gpu_id)]
    n_devices = options.gpu_id.count(",") + 1
    if n_devices > 1:
        words += ["--executor", "processes", "--workers", str(n_devices)]
    if options.model is not None:
        words.append(f"model={options.model}")
    if options.log is not None:
        words.append(f"play.log={options.log}")
    words += [f"{key}={value}" for key, value in settings.items()]
    return words + options.settings


def play_games(text: str, preset: str, model: str) -> None:
    """Experiment 0: games alone, and `MODEL_3200_games.json`."""
    options = seed_parser(text, preset).parse_intermixed_args()
    run_and_write(games_words(options, model), options.out, lambda run: games_of(run, model))


def games_words(options: argparse.Namespace, model: str) -> list[str]:
    return command(options, f"{model}_3200", {"saes.source": "null", **RETRIES})


def games_of(run: Run, model: str) -> dict[str, Any]:  # Any: JSON values.
    header = {"model": run.config.model.name, "seed": run.config.seed}
    return {games_name(model): games_json(read_attempts(run), read_games(run), header)}


def add_layers(parser: argparse.ArgumentParser, first: int, last: int) -> None:
    parser.add_argument("--saes", help="folder, run, organism:batch_topk or hub id")
    parser.add_argument("--layer_start", type=int, default=first, help="first block, from 0")
    parser.add_argument("--layer_end", type=int, default=last, help="last block")


def layer_settings(options: argparse.Namespace) -> dict[str, object]:
    """The SAEs of what leaves the blocks from `layer_start` to `layer_end`."""
    default = ORGANISM_SAES if options.model == "organism" else LLAMA_SAES
    layers = range(options.layer_start, options.layer_end + 1)
    if not layers:
        raise ConfigError(f"There is no layer from {layers.start} to {layers.stop - 1}.")
    points = ",".join(map(str, layers)) + ".resid_post"
    return {"saes.source": options.saes or default, "saes.hook_points": points}


def devices(gpu_id: str) -> str:
    """`2,4` -> `cuda:2,cuda:4`."""
    if gpu_id in ("auto", "cpu"):
        return gpu_id
    place(gpu_id)
    return ",".join(f"cuda:{number}" for number in gpu_id.split(","))


def run_and_write(words: list[str], out: Path | None, contents: Contents) -> None:
    """Runs `fluoro` in this process, so that Ctrl-C and errors are its own, then writes."""
    print("fluoro", shlex.join(words), file=sys.stderr)
    sys.argv = ["fluoro", *words]
    try:
        fluoro()
    except SystemExit as end:
        if end.code:
            raise
    run = Run.open(runs_root() / words[words.index("--name") + 1])
    for path in write_seed_files(out or run.folder / "seed_files", contents(run)):
        print(path)


def guarded(main: Callable[[], None]) -> None:
    """What the user can mend is a message."""
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
