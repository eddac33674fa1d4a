"""The unlearning study, disturbed in every step and by every means, ends with the same bytes."""

import signal

import pytest
from small_unlearning import texts_spec
from strikes import end_after_kills, end_after_strikes

from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.unlearning.study import UnlearningStudy

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return texts_spec(tmp_path_factory.mktemp("data"), select={"by": ["frequency"], "n": [4]})


def forgotten(root, spec, **how):
    how = How(**how) if how else How(devices="cpu")
    return execute(UnlearningStudy(), spec, "small", how, root=root)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, spec):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return forgotten(tmp_path_factory.mktemp("undisturbed"), spec)


def step_names(spec):
    study = UnlearningStudy()
    return [step.name for step in study.steps(study.resolve(spec))]


def result_bytes(run: Run, spec) -> dict[str, str]:
    """Of every step and of what is made for people."""
    made = [*step_names(spec), "tables"]
    return {name: sha256_folder(run.folder / name) for name in made if (run.folder / name).exists()}


def test_stopped_in_every_step_it_ends_with_the_bytes_of_a_run_left_alone(
    undisturbed, spec, tmp_path, monkeypatch
):
    monkeypatch.setattr(UnlearningStudy, "steps", UnlearningStudy.steps)
    merges = ("statistics-merge", "tune-merge")
    run, strikes = end_after_strikes(
        UnlearningStudy, lambda: forgotten(tmp_path, spec), merges, tmp_path / "struck"
    )
    assert strikes == {*step_names(spec), *merges}
    assert result_bytes(run, spec) == result_bytes(undisturbed, spec)


@pytest.mark.slow
def test_killed_in_every_step_and_every_merge_it_ends_with_the_same_bytes(
    undisturbed, spec, tmp_path
):
    codes = end_after_kills("unlearning", spec, "small", tmp_path)
    assert codes == [-signal.SIGKILL] * 2 * len(step_names(spec)) + [0]
    run = Run(tmp_path / "small", "unlearning", undisturbed.config)
    assert result_bytes(run, spec) == result_bytes(undisturbed, spec)


@pytest.mark.slow
def test_by_worker_processes_it_ends_with_the_same_bytes(undisturbed, spec, tmp_path):
    run = forgotten(tmp_path, spec, executor="processes", workers=2)
    assert result_bytes(run, spec) == result_bytes(undisturbed, spec)


def test_every_step_of_named_saes_is_of_one_phase_or_of_the_report(spec):
    listed = [name for names in UnlearningStudy.phases.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(step_names(spec))
