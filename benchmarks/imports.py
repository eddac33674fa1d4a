"""Seconds until Fluoroscope can be used: imports, and the command line's help.

Each measurement is a fresh process. Importing is timed inside it, after torch and transformers
are there; the command line from outside, as a user waits for it, beside a Python that does
nothing. Goals are wall seconds, judged by the fastest round: a busy machine only adds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Contender, Outcome, command_line, interleave

ROUNDS = 5
PACKAGE = "import fluoroscope"
EVERYTHING = "all public names"
COMMANDS = {
    "fluoro --help": ["--help"],
    "fluoro run dictionary --help": ["run", "dictionary", "--help"],
}
NOTHING = "python -c pass"
HEAVY = ("torch", "transformers", "numba")

IMPORT_SECONDS = """
import time, torch, transformers
{warm}
begin = time.perf_counter()
{script}
print(time.perf_counter() - begin)
"""
# torch and transformers load their own parts when first asked: those are no part of ours.
WARM = "from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase"
NAMES = "import fluoroscope\nfor name in fluoroscope.__all__: getattr(fluoroscope, name)"
LOADED = """
import json, sys
import fluoroscope.cli
sys.argv = ["fluoro", *{arguments}]
try:
    fluoroscope.cli.main()
except SystemExit:
    pass
print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def measure(rounds: int) -> Outcome:
    # The script that pip made, as users start it.
    script = Path(sys.executable).with_name("fluoro")
    seconds: dict[str, list[float]] = {}

    def noted(name: str, once: Callable[[], float]) -> Contender:
        def run() -> float:
            seconds.setdefault(name, []).append(once())
            return seconds[name][-1]

        return Contender(name, run, 1)

    contenders = [
        noted(PACKAGE, lambda: _import_seconds("import fluoroscope")),
        noted(EVERYTHING, lambda: _import_seconds(NAMES)),
        noted(NOTHING, lambda: _wall_seconds([sys.executable, "-c", "pass"])),
    ]
    for name, arguments in COMMANDS.items():
        command = [str(script), *arguments]
        contenders.append(noted(name, lambda command=command: _wall_seconds(command)))
    timings = interleave(contenders, rounds)
    loaded = {name: _heavy_modules(arguments) for name, arguments in COMMANDS.items()}
    # The first round warms up.
    ordered = {name: seconds[name][-rounds:] for name in timings}
    fastest = {name: min(times) for name, times in ordered.items()}
    return Outcome(
        title="Imports and the command line",
        columns=["what", "fastest, s", "slowest, s", "heavy modules loaded"],
        rows=[
            [
                name,
                f"{fastest[name]:.3f}",
                f"{max(times):.3f}",
                ", ".join(loaded[name]) or "none" if name in loaded else "",
            ]
            for name, times in ordered.items()
        ],
        timings=timings,
        conditions={"rounds": rounds, "seconds": "of the wall clock, in fresh processes"},
        goals={
            **{
                f"{name} adds at most 0.5 s to torch and transformers: {fastest[name]:.3f} s": (
                    fastest[name] <= 0.5
                )
                for name in (PACKAGE, EVERYTHING)
            },
            **{
                f"{name} within 1 s: {fastest[name]:.2f} s": fastest[name] <= 1 for name in COMMANDS
            },
            **{f"{name} loads no torch": "torch" not in loaded[name] for name in COMMANDS},
        },
    )


def _import_seconds(script: str) -> float:
    return float(_output(IMPORT_SECONDS.format(warm=WARM, script=script)).split()[-1])


def _wall_seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def _heavy_modules(arguments: list[str]) -> list[str]:
    script = LOADED.format(arguments=json.dumps(arguments), heavy=HEAVY)
    return json.loads(_output(script).splitlines()[-1])


def _output(script: str) -> str:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    command_line(measure, ROUNDS)
