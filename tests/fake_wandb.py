"""The package wandb, with all that is said to it; nothing is written and nothing is sent."""

import sys
from types import SimpleNamespace

import pytest

from fluoroscope.steps import wandb_runs

VARIABLES = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY")


class FakeRun:
    def __init__(self, **asked):
        self.asked, self.logged, self.summary, self.artifacts = asked, {}, {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def log(self, values, step):
        self.logged.setdefault(step, {}).update(values)

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)


class FakeArtifact:
    def __init__(self, name, type):
        self.name, self.type, self.files = name, type, []

    def add_file(self, path):
        self.files.append(path.rpartition("/")[2])


def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nobody has said anything of W&B."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that are begun from now on."""
    runs: list[FakeRun] = []

    def init(**asked):
        runs.append(FakeRun(**asked))
        return runs[-1]

    def table(columns, data):
        return [dict(zip(columns, row, strict=True)) for row in data]

    module = SimpleNamespace(
        init=init, Table=table, Image=str, Artifact=FakeArtifact, Settings=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(wandb_runs, "find_spec", lambda _: object())
    return runs
