"""The anatomy study, struck in every step, ends with the bytes of a run that was left alone."""

import signal

import pytest
from small_anatomy import small_spec
from strikes import end_after_kills, end_after_strikes

from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.anatomy.study import AnatomyStudy

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    settings = {"n_sequences": 4, "read": {"sequences_per_shard": 2}, "cross": {"n_sequences": 2}}
    return small_spec(tmp_path_factory.mktemp("data"), ablations=["reconstructed"], **settings)


def looked_at(root, spec, **how):
    return execute(AnatomyStudy(), spec, "small", How(devices="cpu", **how), root=root)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, spec):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return looked_at(tmp_path_factory.mktemp("undisturbed"), spec)


def step_names(spec):
    study = AnatomyStudy()
    return [step.name for step in study.steps(study.resolve(spec))]


def result_bytes(run: Run, spec) -> dict[str, dict[str, str]]:
    return {name: sha256_folder(run.folder / name) for name in [*step_names(spec), "tables"]}


def test_stopped_in_every_step_it_ends_with_the_bytes_of_a_run_left_alone(
    undisturbed, spec, tmp_path, monkeypatch
):
    monkeypatch.setattr(AnatomyStudy, "steps", AnatomyStudy.steps)
    merges = ("statistics-merge", "losses-merge")
    run, strikes = end_after_strikes(
        AnatomyStudy, lambda: looked_at(tmp_path, spec), merges, tmp_path / "struck"
    )
    assert strikes == {*step_names(spec), *merges}
    assert result_bytes(run, spec) == result_bytes(undisturbed, spec)


@pytest.mark.slow
def test_killed_in_every_step_and_every_merge_it_ends_with_the_same_bytes(
    undisturbed, spec, tmp_path
):
    codes = end_after_kills("anatomy", spec, "small", tmp_path)
    assert codes == [-signal.SIGKILL] * 2 * len(step_names(spec)) + [0]
    run = Run(tmp_path / "small", "anatomy", undisturbed.config)
    assert result_bytes(run, spec) == result_bytes(undisturbed, spec)


@pytest.mark.slow
def test_by_worker_processes_it_ends_with_the_same_bytes(undisturbed, spec, tmp_path):
    run = looked_at(tmp_path, spec, executor="processes", workers=2)
    assert result_bytes(run, spec) == result_bytes(undisturbed, spec)


def test_every_step_but_that_of_texts_is_of_one_phase(spec):
    listed = [name for names in AnatomyStudy.phases.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert {*listed, "texts"} == set(step_names(spec))
