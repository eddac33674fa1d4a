"""A run goes on where it stopped, however it stopped, and ends with the same bytes."""

import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest
from toy_runs import result_bytes, run_toy, wait_for

from fluoroscope.core.errors import DamagedError, DoesNotFitError, RunError, RunLockedError
from fluoroscope.runs.events import read_events, read_metrics
from fluoroscope.runs.how import How
from fluoroscope.runs.lock import main_lock, worker_lock, working_process
from fluoroscope.runs.record import read_record
from fluoroscope.runs.run import DONE

SLOW = ("run", "toy", "--name", "toy", "pause_s=0.03", "--checkpoint-s", "0.01")


@pytest.mark.parametrize(("executor", "other"), [("local", "processes"), ("processes", "local")])
def test_kill_9_at_random_moments_and_another_executor_change_no_byte(
    tmp_path: Path, start, undisturbed, executor: str, other: str
) -> None:
    folder = tmp_path / "toy"
    for seed in range(2):
        n_before = len(read_events(folder))
        process = start(*SLOW, "--executor", executor, "--workers", "2")
        wait_for(lambda before=n_before: len(read_events(folder)) > before + 4)
        time.sleep(random.Random(seed).uniform(0, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    # The orphans of the one just killed may still be at work.
    run = run_toy(tmp_path, how=How(executor=other, workers=2))
    assert result_bytes(run.folder) == undisturbed
    assert read_record(run.folder).how.executor == other


def test_ctrl_c_saves_the_loop_and_says_how_to_go_on(tmp_path: Path, start, undisturbed) -> None:
    process = start(*SLOW[:-2])
    wait_for(lambda: list(read_metrics(tmp_path / "toy", "walks")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Stopped. Go on with: fluoro run toy --name toy pause_s=0.03" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "toy" / "walks" / "state" / "left.safetensors").exists()
    run = run_toy(tmp_path)
    assert result_bytes(run.folder) == undisturbed
    texts = [event["text"] for event in read_events(run.folder, "message")]
    assert any(text.startswith("Goes on at iteration") for text in texts)


def test_ctrl_c_reaches_loops_in_worker_processes(tmp_path: Path, start, undisturbed) -> None:
    process = start(*SLOW[:-2], "--executor", "processes", "--workers", "2")
    wait_for(lambda: len(list(read_metrics(tmp_path / "toy", "walks"))) > 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert len(list((tmp_path / "toy" / "walks" / "state").glob("*.safetensors"))) == 2
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed


def test_work_that_does_not_listen_is_interrupted(tmp_path: Path, start) -> None:
    process = start("run", "toy", "--name", "toy", "pause_s=600")
    wait_for(lambda: read_events(tmp_path / "toy", "shard started"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "Stopped. Go on with: " in errors
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_a_loop_resumes_from_every_checkpoint_bit_for_bit(tmp_path: Path, undisturbed) -> None:
    how = How(checkpoint_s=1e-9, retries=0)
    for iteration in (0, 1, 17, 39):
        with pytest.raises(RunError, match="the toy broke"):
            run_toy(tmp_path, how=how, misbehave=f"raise:left@{iteration}")
    assert result_bytes(run_toy(tmp_path, how=how).folder) == undisturbed
    began = [event["iteration"] for event in read_events(tmp_path / "toy", "metrics")]
    # Each iteration of both walks was done once: no start went back behind a checkpoint.
    assert len(began) == 80


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    folder = run_toy(tmp_path).folder
    times = {path: path.stat().st_mtime_ns for path in (folder / "walks").rglob("*")}
    run_toy(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (folder / "walks").rglob("*")} == times
    assert not read_events(folder, "shard started")[6:]


def test_a_failed_shard_is_tried_again_and_the_rest_is_kept(tmp_path: Path, undisturbed) -> None:
    run = run_toy(tmp_path, misbehave="raise_once:part-1", folder=str(tmp_path))
    assert result_bytes(run.folder) == undisturbed
    (failed,) = read_events(run.folder, "shard failed")
    assert "ValueError: the toy broke" in failed["traceback"]


def test_a_run_with_failed_shards_is_counted_and_not_put_together(
    tmp_path: Path, undisturbed
) -> None:
    with pytest.raises(RunError, match="1 of 4 shards of step numbers failed") as failure:
        run_toy(tmp_path, misbehave="raise:part-1", how=How(retries=2))
    assert "part-1: ValueError: the toy broke" in str(failure.value)
    folder = tmp_path / "toy"
    assert [event["attempt"] for event in read_events(folder, "shard failed")] == [1, 2, 3]
    assert len(list((folder / "numbers" / "shards").iterdir())) == 3
    assert not (folder / "numbers" / "all.safetensors").exists()
    assert not (folder / "numbers" / DONE).exists()
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed


def test_a_full_disk_is_named_and_nothing_finished_is_lost(
    tmp_path: Path, undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("toy_study.Numbers.merge", full)
        with pytest.raises(DoesNotFitError, match="The disk is full"):
            run_toy(tmp_path)
    assert len(list((tmp_path / "toy" / "numbers" / "shards").iterdir())) == 4
    with monkeypatch.context() as patched:
        patched.setattr("toy_study.Walk.finish", full)
        with pytest.raises(DoesNotFitError, match=r"The disk is full: shard left of step walks"):
            run_toy(tmp_path)
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed


def test_a_changed_setting_is_refused_with_the_keys_that_changed(tmp_path: Path) -> None:
    run_toy(tmp_path)
    with pytest.raises(RunError) as refused:
        run_toy(tmp_path, seed=1, nested={"width": 9})
    assert "seed: 0 -> 1" in str(refused.value)
    assert "nested.width: 8 -> 9" in str(refused.value)
    assert "n_iterations" not in str(refused.value)


def test_a_how_setting_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    run_toy(tmp_path, pause_s=0.001)
    assert run_toy(tmp_path, pause_s=0.0).config.pause_s == 0.0


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds thesis\.txt: it is not a run"):
        run_toy(tmp_path)
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["thesis.txt"]


def test_a_run_of_another_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_toy(tmp_path)
    monkeypatch.setattr("toy_study.ToyStudy.name", "other")
    with pytest.raises(RunError, match="is a run of the study 'toy', not of 'other'"):
        run_toy(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="cannot name a folder"):
        run_toy(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_second_process_on_a_run_is_refused_by_the_pid_of_the_first(
    tmp_path: Path, start
) -> None:
    process = start("run", "toy", "--name", "toy", "pause_s=60")
    wait_for(lambda: read_events(tmp_path / "toy", "shard started"))
    try:
        with pytest.raises(RunLockedError, match=f"by process {process.pid} on "):
            run_toy(tmp_path)
    finally:
        process.kill()
        process.communicate()
    assert working_process(tmp_path / "toy") is None


def test_a_start_waits_for_the_orphans_of_one_that_was_killed(tmp_path: Path) -> None:
    with (
        worker_lock(tmp_path),
        pytest.raises(RunLockedError, match="Workers of an earlier start"),
        main_lock(tmp_path, orphans_s=0.2),
    ):
        pass
    with main_lock(tmp_path, orphans_s=0.2):
        assert working_process(tmp_path) is not None


def test_a_damaged_shard_is_named_and_made_anew_once_it_is_deleted(
    tmp_path: Path, undisturbed
) -> None:
    folder = run_toy(tmp_path).folder
    shard = folder / "numbers" / "shards" / "part-1"
    data = bytearray((shard / "values.safetensors").read_bytes())
    data[-1] ^= 1
    (shard / "values.safetensors").write_bytes(data)
    with pytest.raises(DamagedError, match=r"part-1/values\.safetensors is damaged") as damage:
        run_toy(tmp_path)
    assert f"Delete the folder {shard} " in str(damage.value)
    for path in shard.iterdir():
        path.unlink()
    shard.rmdir()
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed
    assert len(read_events(folder, "shard started")) == 7, "only the deleted shard is done again"


def test_a_damaged_result_of_a_merge_is_named_and_made_anew(tmp_path: Path, undisturbed) -> None:
    folder = run_toy(tmp_path).folder
    (folder / "numbers" / "all.safetensors").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"all\.safetensors is damaged") as damage:
        run_toy(tmp_path)
    assert f"Delete {folder / 'numbers' / DONE} " in str(damage.value)
    (folder / "numbers" / DONE).unlink()
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed


def test_work_made_from_other_inputs_is_not_taken_for_this_ones(
    tmp_path: Path, undisturbed
) -> None:
    folder = run_toy(tmp_path).folder
    manifest = folder / "walks" / DONE
    manifest.write_text(manifest.read_text().replace('"numbers": "', '"numbers": "0'))
    for shard in ("left", "right"):
        path = folder / "walks" / "shards" / shard / "shard.json"
        path.write_text(path.read_text().replace('"numbers": "', '"numbers": "0'))
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed
    assert len(read_events(folder, "shard started")) == 8


def test_a_table_that_was_deleted_is_written_again(tmp_path: Path, undisturbed) -> None:
    folder = run_toy(tmp_path).folder
    (folder / "tables" / "norms.csv").unlink()
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path, undisturbed) -> None:
    folder = run_toy(tmp_path).folder
    (folder / "tables" / ".norms.csv.77.part").write_text("half")
    (folder / "done.json").unlink()
    (folder / "numbers" / DONE).unlink()
    (folder / "numbers" / "partial" / "part-9").mkdir(parents=True)
    assert result_bytes(run_toy(tmp_path).folder) == undisturbed
    assert not (folder / "numbers" / "partial").exists()


def test_a_step_that_is_not_done_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        run_toy(tmp_path, misbehave="raise:left@3", how=How(retries=0))
    run = run_toy(tmp_path, "whole")
    (run.folder / "walks" / DONE).unlink()
    with pytest.raises(RunError, match="Step 'walks' of run whole is not done"):
        run.step_folder("walks")
    with pytest.raises(RunError, match="Shard 'middle' of step 'walks' of run whole is not done"):
        run.shard_folder("walks", "middle")
