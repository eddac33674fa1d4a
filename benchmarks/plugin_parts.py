"""What the parts of `benchmarks.plugin` share: how ways are compared, and where texts come from."""

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats

from benchmarks.harness import Contender, Timing, interleave
from fluoroscope.data.labelled.base import labelled_place, labelled_set
from fluoroscope.data.labelled.example import Example

WARM_UP = 1
N_ROUNDS = 7
"""At most, of parts whose rounds are long: epochs, or a pass for each layer."""

COLUMNS = ("what", "way", "cost", "times (95 %)", "by the clock", "note")


@dataclass
class Part:
    """A part of the benchmark; `times` are of its rows' first way."""

    rows: list[list[str]] = field(default_factory=list)
    timings: dict[str, Timing] = field(default_factory=dict)
    goals: dict[str, bool] = field(default_factory=dict)
    conditions: dict[str, str | int | float] = field(default_factory=dict)

    def join(self, other: "Part") -> None:
        self.rows += other.rows
        self.timings |= other.timings
        self.goals |= other.goals
        self.conditions |= other.conditions


class Interval(NamedTuple):
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Compared:
    """Contenders that did the same work, round by round; the first is what others are held to."""

    timings: Mapping[str, Timing]
    clock: Mapping[str, Sequence[float]]
    """Seconds of the clock, of counted rounds."""

    def times(self, name: str) -> Interval:
        """CPU seconds over those of the first in the same round."""
        first = next(iter(self.timings.values())).cpu_seconds
        mine = self.timings[name].cpu_seconds
        return interval([a / b for a, b in zip(mine, first, strict=True)])

    def clock_times(self, name: str) -> float:
        first = next(iter(self.clock.values()))
        return statistics.median(a / b for a, b in zip(self.clock[name], first, strict=True))

    def part(self, what: str, unit: str) -> Part:
        """A row each; `unit` is of the contenders' work."""
        part = Part(timings={f"{what}: {name}": timing for name, timing in self.timings.items()})
        for place, (name, timing) in enumerate(self.timings.items()):
            cost = f"{1e3 / timing.rate:,.2f} ms {unit}"
            ratios = (str(self.times(name)), f"{self.clock_times(name):.3f}") if place else ("", "")
            part.rows.append([what, name, cost, *ratios, timing.note])
        return part


def compare(contenders: Sequence[Contender], rounds: int) -> Compared:
    """Interleaved, in CPU seconds of all threads, and by the clock beside them."""
    clock: dict[str, list[float]] = {one.name: [] for one in contenders}

    def timed(one: Contender) -> Contender:
        def run() -> None:
            begin = time.perf_counter()
            one.run()
            clock[one.name].append(time.perf_counter() - begin)

        return replace(one, run=run)

    timings = interleave([timed(one) for one in contenders], rounds, WARM_UP)
    return Compared(timings, {name: seconds[WARM_UP:] for name, seconds in clock.items()})


def interval(values: Sequence[float]) -> Interval:
    """Of the median, by order statistics; from the least to the most where rounds are too few."""
    found = scipy.stats.quantile_test(values, p=0.5).confidence_interval()
    low = min(values) if math.isnan(found.low) else float(found.low)
    high = max(values) if math.isnan(found.high) else float(found.high)
    return Interval(statistics.median(values), low, high)


def sst2(n: int) -> list[Example] | None:
    """`n` training texts of SST-2 whose lengths are spread as those of all; None without its files.

    In a fixed random order.
    """
    places = [os.environ.get("FLUOROSCOPE_DATA"), str(Path("..") / "shared" / "data")]
    found = [labelled_place("sst2", place) for place in places if place]
    place = next((one for one in found if Path(one).is_dir()), None)
    if place is None:
        return None
    texts = [one for one in labelled_set("sst2").read(place).items if one.split == "train"]
    texts.sort(key=lambda one: (len(one.text), one.id))
    at = np.linspace(0, len(texts) - 1, min(n, len(texts))).round().astype(int)
    return [texts[i] for i in np.random.default_rng(0).permutation(at)]
