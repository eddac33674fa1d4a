"""One of the processes that share a training: `python -m ...sharing_process DEVICE`.

It does what `SharedTrainer` asks for in JSON lines on standard input, and answers each with a
line on standard output. It ends at the end of its input.
"""

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from fluoroscope.core.sink import Sink

State = dict[str, Any]  # Any: see core.tensors, which imports torch.


class Trainer(Protocol):
    """What can be shared: it makes the same steps in every process."""

    n_iterations: int

    def advance(self, iteration: int, sink: Sink) -> None: ...

    def state(self) -> State: ...

    def load(self, state: State) -> None: ...

    def result(self) -> NamedTuple: ...


def main() -> None:
    device = sys.argv[1]
    # What a library prints goes to the log; the pipe is for answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, asked), daemon=True).start()
    trainer: Trainer | None = None
    while True:
        said = json.loads(asked.get())
        try:
            if said["do"] == "begin":
                trainer = _begin(said, device)
                answer: Any = trainer.n_iterations  # Any: a JSON value.
            else:
                assert trainer is not None, "the first that is asked for is to begin"
                answer = _done(trainer, said)
            line = {"answer": answer}
        except Exception as error:  # Whatever it is, the parent must hear of it.
            traceback.print_exc()
            line = {"error": [type(error).__name__, str(error)]}
        answers.write(json.dumps(line) + "\n")
        answers.flush()


def _read(lines: TextIO, asked: "queue.Queue[str]") -> None:
    for line in lines:
        asked.put(line)
    # The parent has closed the pipe, or died: nobody waits for what this process does.
    os._exit(0)


def _begin(said: Mapping[str, Any], device: str) -> Trainer:
    # Imported after the threads of every library were fixed by the environment.
    import torch

    torch.set_num_threads(said["threads"])
    if device != "cpu":
        torch.cuda.set_device(device)
    if said["is_deterministic"]:
        torch.use_deterministic_algorithms(True, warn_only=True)
    # By a file, as a free port may be taken by the time that it is used.
    torch.distributed.init_process_group(
        "gloo" if device == "cpu" else "nccl",
        init_method=f"file://{said['meeting']}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    module, _, name = said["make"].partition(":")
    return getattr(importlib.import_module(module), name)(**said["arguments"], device=device)


def _done(trainer: Trainer, said: Mapping[str, Any]) -> Any:  # Any: a JSON value.
    from fluoroscope.core.tensors import read_state, write_state

    is_first = os.environ["RANK"] == "0"
    match said["do"]:
        case "advance":
            heard = _Heard()
            trainer.advance(said["iteration"], heard)
            return heard.all
        case "load":
            trainer.load(read_state(Path(said["path"])))
        case "state" if is_first:
            write_state(Path(said["path"]), trainer.state())
        case "result" if is_first:
            write_state(Path(said["path"]), trainer.result()._asdict())
    return None


class _Heard(Sink):
    """What a step says, to be said again in the process that shares it out."""

    def __init__(self) -> None:
        self.all: list[list[Any]] = []  # Any: JSON values.

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.all.append(["metrics", step, dict(values)])

    def message(self, text: str) -> None:
        self.all.append(["message", text])


if __name__ == "__main__":
    main()
