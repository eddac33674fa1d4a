"""Tables of scores as files: tensors in safetensors, and joined from the parts that shards made."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.studies.policy.bandit import RewardTable
from fluoroscope.studies.policy.enumeration import ScoreTable

_COLUMNS = tuple(one.name for one in fields(RewardTable))


def save_scores(scores: ScoreTable, path: Path) -> None:
    own = {name: getattr(scores.table, name) for name in _COLUMNS}
    write_tensors(path, {**own, "said": scores.said, "activations": scores.activations})


def load_scores(path: Path) -> ScoreTable:
    found = read_tensors(path)
    table = RewardTable(*(found[name] for name in _COLUMNS))
    return ScoreTable(table, found["said"], found["activations"])


def joined(parts: Sequence[ScoreTable]) -> ScoreTable:
    """One table of all samples, in the order of the parts."""
    columns = (torch.cat([getattr(part.table, name) for part in parts]) for name in _COLUMNS)
    return ScoreTable(
        RewardTable(*columns),
        torch.cat([part.said for part in parts]),
        torch.cat([part.activations for part in parts]),
    )
