"""The steering study, disturbed in every step and by every means, ends with the same bytes."""

import signal

import pytest
from small_study import small_spec
from strikes import end_after_kills, end_after_strikes

from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.steering.study import SteeringStudy

pytestmark = pytest.mark.long


def step_names():
    study = SteeringStudy()
    return [step.name for step in study.steps(study.resolve(small_spec()))]


def result_bytes(run: Run) -> dict[str, str]:
    """Of every step and of what is made for people."""
    made = [*step_names(), "tables"]
    return {name: sha256_folder(run.folder / name) for name in made if (run.folder / name).exists()}


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


def steered(root, **how):
    how = How(**how) if how else How(devices="cpu")
    return execute(SteeringStudy(), small_spec(), "small", how, root=root)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return steered(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
def test_stopped_in_every_step_it_ends_with_the_bytes_of_a_run_left_alone(
    undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(SteeringStudy, "steps", SteeringStudy.steps)
    merges = ("collect-merge", "tune-merge")
    run, strikes = end_after_strikes(
        SteeringStudy, lambda: steered(tmp_path), merges, tmp_path / "struck"
    )
    assert strikes == {*step_names(), *merges}
    assert result_bytes(run) == result_bytes(undisturbed)


@pytest.mark.slow
def test_killed_in_every_step_and_every_merge_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    codes = end_after_kills("steering", small_spec(), "small", tmp_path)
    assert codes == [-signal.SIGKILL] * 2 * len(step_names()) + [0]
    run = Run(tmp_path / "small", "steering", undisturbed.config)
    assert result_bytes(run) == result_bytes(undisturbed)


@pytest.mark.slow
def test_by_worker_processes_and_phase_by_phase_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    how = How(executor="processes", workers=2)
    assert result_bytes(steered(tmp_path / "workers", executor="processes", workers=2)) == (
        result_bytes(undisturbed)
    )
    for phase in SteeringStudy.phases:
        run = execute(
            SteeringStudy(), small_spec(), "small", how, root=tmp_path / "phases", until=phase
        )
    run = execute(SteeringStudy(), small_spec(), "small", how, root=tmp_path / "phases")
    assert result_bytes(run) == result_bytes(undisturbed)


def test_every_step_of_named_saes_is_of_one_phase_or_of_the_report():
    listed = [name for names in SteeringStudy.phases.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(step_names())
