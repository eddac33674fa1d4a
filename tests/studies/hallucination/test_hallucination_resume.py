"""The hallucination study with SAEs of its own, disturbed in every step and by every means."""

import signal

import pytest
from strikes import end_after_kills, end_after_strikes

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.spec import HallucinationSpec
from fluoroscope.studies.hallucination.study import HallucinationStudy

pytestmark = pytest.mark.long

OWN_SAES = {
    "model": "organism",
    "train": {
        "corpus": {"source": "organism:", "context": 128, "pack": False},
        "n_tokens": 6000,
        "hook_points": "2-3.resid_post",
        "sae": {"d_sae": 96, "k": 6},
        "training": {"batch_size": 256, "validate_every": 10},
        "evaluation": {"n_tokens": 1000, "cards": 1, "contexts": 2, "truth_pairs": 10},
    },
    "data": {"name": "organism", "limit": 60},
    "answers": {"max_tokens": 6, "samples": 2, "prompts_per_shard": 50},
    "read": {"answers_per_shard": 30},
    "tracking": {"sample": 60, "hypotheses": 3},
    "detection": {"folds": 2, "repeats": 1, "resamples": 40, "permutations": 2, "also": []},
    "causes": {"answers": 4, "controls": 2, "answers_per_shard": 2},
    "validation": {"scenes": 2},
}
PHASES = ["extract", "train", "track", "detect", "evaluate"]


def own_saes(**changes):
    return build(HallucinationSpec, {**OWN_SAES, **changes})


def step_names(spec):
    study = HallucinationStudy()
    return [step.name for step in study.steps(study.resolve(spec))]


def result_bytes(run: Run) -> dict[str, str]:
    """Of every step and of what is made for people."""
    parts = [*step_names(own_saes()), "tables"]
    return {name: sha256_folder(run.folder / name) for name in parts}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """By two worker processes."""
    how = How(executor="processes", workers=2)
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return execute(HallucinationStudy(), own_saes(), "own", how, root=folder)


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


@pytest.mark.slow
def test_stopped_in_every_step_it_ends_with_the_bytes_of_worker_processes_left_alone(
    undisturbed, tmp_path, monkeypatch
):
    def start():
        return execute(HallucinationStudy(), own_saes(), "own", How(devices="cpu"), root=tmp_path)

    monkeypatch.setattr(HallucinationStudy, "steps", HallucinationStudy.steps)
    merges = ("read-merge", "detect-merge")
    run, strikes = end_after_strikes(HallucinationStudy, start, merges, tmp_path / "struck")
    assert strikes == {*step_names(own_saes()), *merges}
    assert result_bytes(run) == result_bytes(undisturbed)


@pytest.mark.slow
def test_killed_in_every_step_and_every_merge_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    codes = end_after_kills("hallucination", own_saes(), "own", tmp_path)
    assert codes == [-signal.SIGKILL] * 2 * len(step_names(own_saes())) + [0]
    run = Run(tmp_path / "own", "hallucination", undisturbed.config)
    assert result_bytes(run) == result_bytes(undisturbed)


@pytest.mark.slow
def test_phase_by_phase_it_ends_with_the_bytes_of_one_start(undisturbed, tmp_path):
    study = HallucinationStudy()
    how = How(executor="processes", workers=2)
    for phase in PHASES:
        run = execute(study, own_saes(), "own", how, root=tmp_path, until=phase)
        done = {file.parent.name for file in run.folder.glob("*/done.json")}
        assert set(study.phases[phase]) & set(step_names(own_saes())) <= done
    assert result_bytes(run) == result_bytes(undisturbed)


def test_every_step_is_of_one_phase():
    phases = HallucinationStudy.phases
    listed = [name for names in phases.values() for name in names]
    assert list(phases) == PHASES
    assert len(set(listed)) == len(listed)
    assert set(step_names(own_saes())) <= set(listed)


def test_the_saes_of_a_run_are_named_or_trained_and_never_both_nor_several():
    study = HallucinationStudy()
    with pytest.raises(ConfigError, match="give one of both"):
        study.resolve(own_saes(saes="organism:batch_topk"))
    with pytest.raises(ConfigError, match="have them trained here"):
        study.resolve(own_saes(train=None))
    with pytest.raises(ConfigError, match="4 SAEs of 2 hook points"):
        study.resolve(own_saes(train={**OWN_SAES["train"], "sae": {"d_sae": 96, "k": [4, 6]}}))
    with pytest.raises(ConfigError, match=r"there is one, of 2.resid_post"):
        study.resolve(own_saes(train={**OWN_SAES["train"], "hook_points": "2.resid_post"}))
    named = own_saes(train=None, saes={"source": "organism:batch_topk"})
    assert "saes" not in [step.name for step in study.steps(study.resolve(named))]
