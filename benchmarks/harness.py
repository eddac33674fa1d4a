"""How every benchmark here measures: interleaved rounds, CPU seconds, one pinned thread.

Machines are shared, so a second of the clock says little. Each round runs every contender
once, in an order that rotates; a contender is judged by the ratio of its CPU seconds to the
peer's *in the same round*, given as the median over rounds with its smallest and largest.
The physical floor (arithmetic at the speed of a plain matrix product, or memory traffic at
that of a plain copy) is measured in the same process and stands in the same table.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Contender:
    """One way to do the work; `run` does it once.

    `run` may return the CPU seconds itself, where they are spent in another process.
    """

    name: str
    run: Callable[[], float | None]
    work: float
    """Units of work (tokens, samples) in one run."""

    note: str = ""


@dataclass
class Timing:
    """CPU seconds of one contender, one a round."""

    name: str
    work: float
    note: str
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Units of work for each CPU second, by the median round."""
        return self.work / statistics.median(self.cpu_seconds)


@dataclass(frozen=True)
class Ratio:
    """Speed of a contender over that of a peer, round by round; above 1 is faster."""

    median: float
    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.smallest:.2f} to {self.largest:.2f})"


def pin_one_thread() -> None:
    """One thread on one core: the last that this process may use."""
    torch.set_num_threads(1)
    if "numba" in sys.modules:
        # Its loops would otherwise start their own number of threads, and set torch's to it.
        sys.modules["numba"].set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def interleave(contenders: Sequence[Contender], rounds: int, warm_up: int = 1) -> dict[str, Timing]:
    """Every contender once a round, in an order that rotates; warm-up rounds are not counted."""
    timings = {c.name: Timing(c.name, c.work, c.note) for c in contenders}
    for number in range(-warm_up, rounds):
        shift = number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            seconds = _cpu_seconds(contender.run)
            if number >= 0:
                timings[contender.name].cpu_seconds.append(seconds)
    return timings


def _cpu_seconds(run: Callable[[], float | None]) -> float:
    begin = time.process_time()
    own = run()
    return time.process_time() - begin if own is None else own


def speed_ratio(timing: Timing, peer: Timing) -> Ratio:
    """How many times faster than the peer, for the same work."""
    ratios = [
        (timing.work / mine) / (peer.work / theirs)
        for mine, theirs in zip(timing.cpu_seconds, peer.cpu_seconds, strict=True)
    ]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def matmul_flops_per_s(size: int = 1024, repeats: int = 5) -> float:
    """What a plain float32 matrix product reaches here: the floor for arithmetic."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = [_cpu_seconds(lambda: _discard(left @ right)) for _ in range(repeats + 1)]
    return 2 * size**3 / min(seconds[1:])


def copy_bytes_per_s(n_bytes: int = 1 << 28, repeats: int = 5) -> float:
    """Bytes read plus bytes written by a plain copy: the floor for memory traffic."""
    source = torch.ones(n_bytes // 4)
    target = torch.empty_like(source)
    seconds = [_cpu_seconds(lambda: _discard(target.copy_(source))) for _ in range(repeats + 1)]
    return 2 * n_bytes / min(seconds[1:])


def _discard(_: torch.Tensor) -> None:
    return None


def machine() -> dict[str, str | int | float]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@dataclass(frozen=True)
class Outcome:
    """What a benchmark hands back: its table, the raw rounds, and what was to be reached."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    timings: Mapping[str, Timing]
    conditions: Mapping[str, str | int | float]
    goals: Mapping[str, bool] = field(default_factory=dict)
    """What the benchmark is to reach, and whether it did."""


def command_line(measure: Callable[[int], Outcome], rounds: int) -> None:
    """`--rounds N --json FILE --markdown FILE` around `measure(rounds)`."""
    parser = output_parser()
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds that are counted")
    arguments = parser.parse_args()
    pin_one_thread()
    publish(measure(arguments.rounds), arguments)


def output_parser() -> argparse.ArgumentParser:
    """`--json` and `--markdown`, for a benchmark that adds options of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    return parser


def publish(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Shows the result, and writes it where `output_parser`'s options say."""
    show(outcome)
    if arguments.json is not None:
        write_json(arguments.json, outcome)
    if arguments.markdown is not None:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text(markdown(outcome), encoding="utf-8")


def show(outcome: Outcome) -> None:
    table = Table(title=outcome.title)
    for number, column in enumerate(outcome.columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in outcome.rows:
        table.add_row(*row)
    console = Console()
    # A pipe has no width of its own, and 80 columns cut every line.
    console = console if console.is_terminal else Console(width=160)
    console.print(table)
    console.print("\n".join(_remarks(outcome)), highlight=False)


def markdown(outcome: Outcome) -> str:
    """The table and its conditions, for `benchmarks/results/`."""
    lines = [
        f"# {outcome.title}",
        "",
        "| " + " | ".join(outcome.columns) + " |",
        "|" + " --- |" + " ---: |" * (len(outcome.columns) - 1),
        *("| " + " | ".join(row) + " |" for row in outcome.rows),
        "",
        *(f"- {remark}" for remark in _remarks(outcome)),
    ]
    return "\n".join(lines) + "\n"


def _remarks(outcome: Outcome) -> list[str]:
    return [
        *(
            f"{'reached' if reached else 'MISSED'}: {goal}"
            for goal, reached in outcome.goals.items()
        ),
        *(f"{key}: {value}" for key, value in outcome.conditions.items()),
        "machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()),
        "ratios: of CPU seconds in the same round; median (smallest to largest)",
    ]


def write_json(path: Path, outcome: Outcome) -> None:
    timings = {
        name: {**asdict(timing), "rate": timing.rate} for name, timing in outcome.timings.items()
    }
    rows = [dict(zip(outcome.columns, row, strict=True)) for row in outcome.rows]
    report = {
        "title": outcome.title,
        "machine": machine(),
        "conditions": dict(outcome.conditions),
        "goals": dict(outcome.goals),
        "table": rows,
        "timings": timings,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
