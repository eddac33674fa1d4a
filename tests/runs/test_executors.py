"""The same bytes, whoever does the work and whatever happens to them."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from toy_runs import result_bytes, run_toy, wait_for

from fluoroscope.core.errors import ConfigError, CorpusError, RunError, UserError
from fluoroscope.runs.events import read_events
from fluoroscope.runs.how import How
from fluoroscope.runs.process import resolve_devices


def test_worker_processes_leave_the_bytes_of_one_process(tmp_path: Path, undisturbed) -> None:
    run = run_toy(tmp_path, how=How(executor="processes", workers=2))
    assert result_bytes(run.folder) == undisturbed


def test_a_ray_cluster_leaves_the_bytes_of_one_process_though_a_worker_dies(
    tmp_path: Path, undisturbed
) -> None:
    pytest.importorskip("ray")
    how = How(executor="ray", workers=2)
    run = run_toy(tmp_path, how=how, misbehave="die_once:right@20", folder=str(tmp_path))
    assert result_bytes(run.folder) == undisturbed
    assert len(read_events(run.folder, "shard lost")) == 1


def test_a_worker_that_is_killed_is_replaced_and_its_shard_done_again(
    tmp_path: Path, undisturbed
) -> None:
    how = How(executor="processes", workers=2)
    run = run_toy(tmp_path, how=how, misbehave="die_once:left@25", folder=str(tmp_path))
    assert result_bytes(run.folder) == undisturbed
    lost = read_events(run.folder, "shard lost")
    assert len(lost) == 1
    assert "SIGKILL" in lost[0]["error"]


def test_a_shard_that_kills_every_worker_is_given_up_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluoroscope.runs.engine.MAX_LOST", 1)
    how = How(executor="processes", workers=1)
    with pytest.raises(RunError, match="1 of 2 shards of step numbers failed") as failure:
        run_toy(tmp_path, how=how, misbehave="die:part-1", n_shards=2)
    assert "SIGKILL" in str(failure.value)
    assert len(read_events(tmp_path / "toy", "shard lost")) == 2


def test_what_the_user_can_mend_in_a_worker_is_the_same_error_here(tmp_path: Path) -> None:
    how = How(executor="processes", workers=1)
    with pytest.raises(CorpusError, match="the toy has no text; give it some"):
        run_toy(tmp_path, how=how, misbehave="user_error:part-1")


def test_a_worker_that_cannot_start_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"could not start \(exit code 1\).*workers\.log"):
        run_toy(tmp_path, how=How(executor="processes", workers=1))


def test_ray_that_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'fluoroscope\[ray\]'"):
        run_toy(tmp_path, how=How(executor="ray"))


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"cuda:77 is not here\. This machine has: cpu"):
        resolve_devices("cuda:77")


def test_workers_die_with_the_process_that_started_them(tmp_path: Path, start) -> None:
    command = ["run", "toy", "--name", "toy", "--executor", "processes", "--workers", "2"]
    main = start(*command, "pause_s=30")
    try:
        workers = wait_for(lambda: _working_children(main.pid, tmp_path / "toy"))
    finally:
        os.kill(main.pid, signal.SIGKILL)
        main.communicate()
    assert wait_for(lambda: all(_is_dead(worker) for worker in workers))


def _working_children(pid: int, folder: Path) -> list[psutil.Process]:
    if len(read_events(folder, "shard started")) < 2:
        return []
    return psutil.Process(pid).children(recursive=True)


def _is_dead(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
