"""The connection study at its smallest: walks of one or two hops on a fixed graph of six nodes."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fluoroscope.core.config import build
from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost
from fluoroscope.studies.connection.phases import arms_of_phase
from fluoroscope.studies.connection.spec import ConnectionSpec
from fluoroscope.studies.connection.study import ConnectionStudy

NETWORK = {
    "d_model": 16,
    "n_slots": 4,
    "max_steps": 4,
    "step": "gated",
    "connection": {"name": "bilinear", "rank": 2},
    "halting": {"name": "fixed"},
    "output": {"name": "decoder", "n_layers": 1, "n_heads": 2},
    "max_source": 16,
    "max_target": 4,
    "dropout": 0.1,
}
MADE = {
    "n_train": 48,
    "n_validation": 8,
    "n_test": 24,
    "pointer": {"n_nodes": 6, "train_depth": 2, "test_depth": 4},
}
TRAINING = {
    "optimiser": {"learning_rate": 3e-3},
    "thinking": {"steps": "by_depth"},
    "batch_size": 16,
    "accumulation": 1,
    "max_epochs": 2,
    "precision": "float32",
}


def small_settings(**changes: object) -> dict[str, object]:
    return {
        "data": {"sets": ["pointer_fixed"], "made": MADE},
        "network": NETWORK,
        "arms": ["slots", "transformer"],
        "training": TRAINING,
        "seeds": 2,
        **changes,
    }


def small(**changes: object) -> ConnectionSpec:
    return build(ConnectionSpec, small_settings(**changes))


def run_small(root: Path, name: str = "small", how: How | None = None, **changes: object) -> Run:
    how = how or How(devices="cpu", retries=0)
    return execute(ConnectionStudy(), small(**changes), name, how, root=root)


def run_bare(root: Path, name: str = "small", **changes: object) -> Run:
    """As `run_small`, with no plan before it and no pictures behind it."""
    with pytest.MonkeyPatch.context() as patch:
        _lay_bare(patch)
        return run_small(root, name, **changes)


FEW = ("bilinear_base", "as_before", "best", "none")


def run_few_phases(
    root: Path,
    name: str = "phases",
    until: str = "final",
    arms: Sequence[str] = FEW,
    **changes: object,
) -> Run:
    """Phases of one or two small arms each, up to `until`; also bare."""
    sweep = {"is_on": True, "ratios": [0.5], "ranks": [1], "thresholds": [1], "changes": [0.3]}
    once = {"seeds": 1, "training": {**TRAINING, "max_epochs": 1}}
    spec = small(**{**once, "sweep": sweep, **changes})
    how = How(devices="cpu", retries=0)
    with pytest.MonkeyPatch.context() as patch:
        _lay_bare(patch)
        patch.setattr(
            "fluoroscope.studies.connection.steps.phase.arms_of_phase",
            lambda *asked: [one for one in arms_of_phase(*asked) if one.name in arms],
        )
        return execute(ConnectionStudy(), spec, name, how, root=root, until=until)


def _lay_bare(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
    for place in ("train.training_cost", "phase.arms_cost"):
        patch.setattr(f"fluoroscope.studies.connection.steps.{place}", lambda *_: Cost())


def step_bytes(run: Run) -> dict[str, str]:
    """Hashes of all that steps and tables hold."""
    folders = [one for one in run.folder.iterdir() if one.is_dir() and one.name != "figures"]
    return {one.name: sha256_folder(one) for one in sorted(folders)}
