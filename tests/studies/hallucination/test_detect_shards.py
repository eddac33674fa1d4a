"""Shards of `detect` are numbered, so each says which method it is of, and is asked."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from fluoroscope.core.errors import MismatchError
from fluoroscope.core.sink import SILENT
from fluoroscope.core.storage import write_json
from fluoroscope.core.tensors import write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.settings import AnswerSettings
from fluoroscope.studies.hallucination.steps import detect
from fluoroscope.studies.hallucination.steps.detect import (
    DETECT,
    NOTES,
    SCORES,
    read_notes,
    read_scores,
)

N = 24
CONFIG = HallucinationConfig.model_construct(answers=AnswerSettings(samples=0))
ANSWERS = pl.DataFrame({"label": np.arange(N) % 2, "group_id": np.arange(N) // 2})


class FakeRun(Run):
    """A folder without a record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two methods, of which the second could not be judged."""
    for number, method in enumerate(["style", "latents"]):
        shard = tmp_path / DETECT / "shards" / f"{number:02d}"
        shard.mkdir(parents=True)
        write_json(shard / NOTES, {"method": method, "notes": [f"of {method}"]})
    scores = torch.linspace(0, 1, N, dtype=torch.float64)[None]
    folds = torch.from_numpy(np.arange(N) // 2 % 3)[None]
    place = tmp_path / DETECT / "shards" / "00" / SCORES
    write_tensors(place, {"scores": scores, "folds": folds}, {"method": "style"})
    monkeypatch.setattr(detect, "readable_answers", lambda run: ANSWERS)
    return FakeRun(tmp_path)


def with_methods(monkeypatch, *names):
    found = {name: SimpleNamespace(name=name, kind="columns", columns=name) for name in names}
    monkeypatch.setattr(detect, "methods", lambda config: found)


def test_scores_and_notes_are_those_of_the_method_that_is_asked_for(run, monkeypatch):
    with_methods(monkeypatch, "style", "latents")
    assert list(read_scores(run, CONFIG)) == ["style"]
    assert read_notes(run, 1, "latents") == ["of latents"]


@pytest.mark.parametrize("now", [("length", "style", "latents"), ("style", "uncertainty")])
def test_scores_of_another_list_of_methods_are_refused(run, monkeypatch, now):
    with_methods(monkeypatch, *now)
    said = "made by another version, with another list of methods. Remove .*detect .*another --name"
    with pytest.raises(MismatchError, match=said):
        read_scores(run, CONFIG)


def test_notes_of_another_list_of_methods_are_refused(run, monkeypatch):
    with pytest.raises(MismatchError, match="of method 'uncertainty' and is of 'latents'"):
        read_notes(run, 1, "uncertainty")
    with_methods(monkeypatch, "style", "uncertainty")
    step = detect.DetectStep(CONFIG)
    with pytest.raises(MismatchError, match="another list of methods"):
        step.merge(run, run.folder / DETECT, SILENT)
