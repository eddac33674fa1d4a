"""A study of seconds: shards of random numbers, a loop over them, and misbehaviour on request."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import polars
import torch
from torch import Tensor

from fluoroscope.core.config import Config, how
from fluoroscope.core.errors import CorpusError
from fluoroscope.core.seeding import stream, torch_stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_csv
from fluoroscope.core.tensors import State, read_tensors, write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, Loop, LoopStep, MapStep, Shard, ShardContext
from fluoroscope.runs.study import Study


class Nested(Config):
    width: int = 8
    """Columns of the numbers."""


class ToySpec(Config):
    seed: int = 0
    n_shards: int = 4
    n_iterations: int = 40
    nested: Nested = Nested()
    pause_s: float = how(0.0)
    """Sleep in every shard and iteration."""

    misbehave: str = how("")
    """`raise:KEY`, `raise_once:KEY`, `user_error:KEY`, `die:KEY`, `die_once:KEY`."""

    flops: float = how(0.0)
    """What the first step says it costs; a run that costs something measures the machine."""

    folder: str = how("")
    """Where misbehaviour that happens once leaves its mark."""


class ToyConfig(ToySpec):
    threads: int = 1
    total: int


class Numbers(MapStep):
    name = "numbers"

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        return Cost(flops=self.config.flops, memory_bytes=1e6, disk_bytes=1e6, parallel=4)

    def shards(self, run: Run) -> list[Shard]:
        return [Shard(f"part-{i}", {"index": i}) for i in range(self.config.n_shards)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        _misbehave(self.config, shard.key)
        time.sleep(self.config.pause_s)
        draws = stream(self.config.seed, "numbers", shard.params["index"])
        values = torch.from_numpy(draws.standard_normal((64, self.config.nested.width)))
        write_tensors(context.folder / "values.safetensors", {"values": values @ values.T})
        context.sink.progress(64, 64, "rows")

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        files = sorted(folder.glob("shards/*/values.safetensors"))
        values = torch.stack([read_tensors(file)["values"] for file in files])
        write_tensors(folder / "all.safetensors", {"values": values})


class Walk:
    """A random walk whose every step depends on the whole state."""

    def __init__(self, config: ToyConfig, values: Tensor, key: str) -> None:
        self.n_iterations = config.n_iterations
        self.config = config
        self.values = values
        self.key = key
        self.position = torch.zeros(values.shape[-1], dtype=values.dtype)
        self.history: list[float] = []

    def advance(self, iteration: int, sink: Sink) -> None:
        _misbehave(self.config, f"{self.key}@{iteration}")
        time.sleep(self.config.pause_s)
        draws = torch_stream(self.config.seed, "walk", self.key, iteration)
        noise = torch.randn(self.position.shape, generator=draws, dtype=self.values.dtype)
        self.position = torch.tanh(self.values @ self.position / 50 + noise)
        self.history.append(self.position.norm().item())
        sink.metrics(iteration, {"norm": self.history[-1]})

    def state(self) -> State:
        return {"position": self.position, "history": self.history}

    def load(self, state: State) -> None:
        self.position = state["position"]
        self.history = list(state["history"])

    def finish(self, folder: Path, sink: Sink) -> None:
        write_tensors(folder / "position.safetensors", {"position": self.position}, self.history)


class Walks(LoopStep):
    name = "walks"
    inputs = ("numbers",)

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def shards(self, run: Run) -> list[Shard]:
        return [Shard("left", {"index": 0}), Shard("right", {"index": 1})]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        file = run.step_folder("numbers") / "all.safetensors"
        values = run.cached("values", lambda: read_tensors(file)["values"])
        return Walk(self.config, values[shard.params["index"]], shard.key)


class ToyStudy(Study[ToySpec, ToyConfig]):
    name = "toy"
    spec = ToySpec

    def resolve(self, spec: ToySpec) -> ToyConfig:
        return ToyConfig(**spec.model_dump(), total=spec.n_shards * 64)

    def steps(self, config: ToyConfig) -> list[MapStep]:
        return [Numbers(config), Walks(config)]

    def report(self, run: Run, sink: Sink) -> None:
        norms = [
            (key, float(np.linalg.norm(read_tensors(file)["position"].numpy())))
            for key in ("left", "right")
            for file in [run.shard_folder("walks", key) / "position.safetensors"]
        ]
        frame = polars.DataFrame(norms, schema=["walk", "norm"], orient="row")
        write_csv(run.folder / "tables" / "norms.csv", frame)


def _misbehave(config: ToyConfig, key: str) -> None:
    kind, _, where = config.misbehave.partition(":")
    if where != key:
        return
    mark = Path(config.folder) / f"{kind}-{key}"
    if kind.endswith("_once") and mark.exists():
        return
    if kind.endswith("_once"):
        mark.touch()
    if kind.startswith("raise"):
        raise ValueError("the toy broke")
    if kind.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "user_error":
        raise CorpusError("the toy has no text; give it some")
