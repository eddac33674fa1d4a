"""Steps: what a study is made of, and the contract between a step and the run engine.

A `MapStep` is a list of independent shards; a `LoopStep` is one whose shards are long
sequential loops with a state. Work depends on the run's settings, on the shard and on the
folders of earlier steps, and on nothing else: any process may do any shard, at any time, twice.
That is what makes every executor, and every restart, end with the same bytes.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import State, read_state, write_state
from fluoroscope.runs.run import Run


@dataclass(frozen=True)
class Shard:
    """A part of a step that is done as a whole or not at all; small enough to lose."""

    key: str
    """Its name, and that of its folder: letters, digits, `.`, `_`, `-`."""

    params: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values.
    """What the shard is about, as JSON values; they travel to the process that works on it."""


@dataclass(frozen=True)
class Cost:
    """An upper bound of what a whole step will use, known before it starts."""

    flops: float = 0.0
    """Arithmetic of all shards together in 32-bit precision or better."""

    half_flops: float = 0.0
    """Arithmetic in 16-bit precision, which a GPU does several times as fast."""

    bytes_moved: float = 0.0
    """Memory traffic of all shards together, for steps that arithmetic does not bound."""

    overhead_s: float = 0.0
    """Seconds that neither explains, all shards together: the fixed price of many small
    operations, such as the steps of a training or the layers of a forward pass."""

    memory_bytes: float = 0.0
    """Peak memory of one shard, beside that of a bare process."""

    disk_bytes: float = 0.0
    """What the step leaves on disk, all shards together."""

    parallel: int = 1
    """How many shards can be worked on at once."""

    shares_device: bool = False
    """Whether shards leave most of a GPU idle, and take no more of it than `memory_bytes`: then
    several are on one at once where they fit."""

    note: str = ""
    """What the number rests on, in a few words."""


@dataclass(frozen=True)
class ShardContext:
    """What the engine hands to the work on one shard."""

    folder: Path
    """Empty; artefacts go here, and the folder is renamed to its place when work returns."""

    sink: Sink
    device: str

    state_path: Path | None = None
    """Where a loop keeps its checkpoint between processes; None keeps none."""

    checkpoint_s: float = 60.0
    """Seconds of work between checkpoints of a loop."""

    stop: Event = field(default_factory=Event)
    """Set when the user has asked to stop; a loop saves its state and ends."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the manifest of each input step; a state made from others is not resumed."""


class MapStep(ABC):
    """Independent, deterministic shards, then one merge of what they made."""

    name: str
    """Names the step's folder; unique in its study."""

    inputs: tuple[str, ...] = ()
    """Names of the earlier steps whose results this one reads."""

    def cost(self) -> Cost:
        """From the resolved config alone: nothing may have been run yet."""
        return Cost()

    @abstractmethod
    def shards(self, run: Run) -> Sequence[Shard]:
        """Called once the inputs are done, so it may depend on their results."""

    @abstractmethod
    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        """Does one shard into `context.folder`."""

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:  # noqa: B027 - may be nothing
        """Runs when every shard is whole; `folder` holds them as `shards/<key>/`.

        Files go beside `shards`, which must be left as it is; a merge that was killed starts anew.
        """


class Loop(Protocol):
    """A sequential computation that can be put down after any iteration and taken up again."""

    n_iterations: int

    def advance(self, iteration: int, sink: Sink) -> None:
        """Does iteration number `iteration`; progress is reported for it."""
        ...

    def state(self) -> State:
        """All that later iterations depend on: tensors and JSON values (keys are strings)."""
        ...

    def load(self, state: State) -> None:
        """Continues bit for bit as the loop that gave `state`."""
        ...

    def finish(self, folder: Path, sink: Sink) -> None:
        """Writes the artefacts after the last iteration."""
        ...


class LoopStep(MapStep):
    """Each shard is one long loop, checkpointed as it goes and resumed bit for bit."""

    @abstractmethod
    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        """The loop at its very beginning."""

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        loop = self.loop(run, shard, context)
        first = _restore(loop, context)
        saved, saved_at = first, time.monotonic()
        for iteration in range(first, loop.n_iterations):
            stopping = context.stop.is_set()
            if iteration > saved and (
                stopping or time.monotonic() - saved_at >= context.checkpoint_s
            ):
                _save(loop, iteration, context)
                saved, saved_at = iteration, time.monotonic()
            if stopping:
                raise KeyboardInterrupt
            loop.advance(iteration, context.sink)
            context.sink.progress(iteration + 1, loop.n_iterations, "iterations")
        loop.finish(context.folder, context.sink)


def _save(loop: Loop, iteration: int, context: ShardContext) -> None:
    if context.state_path is not None:
        state = {"iteration": iteration, "inputs": dict(context.inputs), "loop": loop.state()}
        write_state(context.state_path, state)


def _restore(loop: Loop, context: ShardContext) -> int:
    if context.state_path is None or not context.state_path.exists():
        return 0
    saved = read_state(context.state_path)
    if saved["inputs"] != dict(context.inputs):
        return 0
    loop.load(saved["loop"])
    context.sink.message(f"Goes on at iteration {saved['iteration']} of {loop.n_iterations}.")
    return saved["iteration"]
