"""Several processes that share a training do what one does, and go on after being killed."""

import os
import signal
import time

import pytest
import torch
from plug_toys import sgd, shared_toy, toy_config, toy_trainer
from threaded import trained_together

from fluoroscope.core.errors import ConfigError, NumericsError, RunError
from fluoroscope.core.sink import Sink
from fluoroscope.models.training.shared_training import SharedTrainer
from fluoroscope.studies.plugin.training import TrainedPlug

ARGUMENTS = {"seed": 1, "learning_rate": 5e-2}


class Curve(Sink):
    def __init__(self):
        self.steps = []

    def metrics(self, step, values):
        self.steps.append(step)


def close(one, other, atol=1e-5):
    assert one.tensors.keys() == other.tensors.keys()
    for name in one.tensors:
        torch.testing.assert_close(one.tensors[name], other.tensors[name], rtol=0, atol=atol)
    assert (one.best_epoch, one.n_steps) == (other.best_epoch, other.n_steps)
    for row, wanted in zip(one.curve, other.curve, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("n_processes", [2, 3])
def test_slices_of_each_batch_give_the_training_of_the_whole(n_processes):
    """25 rows in batches of 8: the last has fewer rows than there are processes."""
    wanted = toy_trainer(toy_config(sgd(), patience=None), dropout=0.0, n=25).train()
    trainers = [
        toy_trainer(toy_config(sgd(), patience=None), dropout=0.0, n=25) for _ in range(n_processes)
    ]
    found = trained_together(trainers)
    for one in found:
        close(one, wanted)
        assert all(torch.equal(one.tensors[name], found[0].tensors[name]) for name in one.tensors)


def test_devices_that_cannot_be_shared_are_refused(tmp_path):
    for devices in ([], ["cuda:0", "cuda:0"], ["cpu", "cuda:0"]):
        with pytest.raises(ConfigError, match="all on the CPU or have a GPU each"):
            SharedTrainer("plug_toys:shared_toy", {}, devices, tmp_path, TrainedPlug)


def started(folder, **changes):
    arguments = {**ARGUMENTS, "processes": 2, **changes}
    return SharedTrainer("plug_toys:shared_toy", arguments, ["cpu", "cpu"], folder, TrainedPlug)


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_again_after_both_were_killed(tmp_path):
    with started(tmp_path) as trainer:
        n, curve = trainer.n_iterations, Curve()
        for step in range(n):
            trainer.advance(step, curve)
        whole = trainer.result()
    close(whole, shared_toy(1, 1, 5e-2, "cpu").train())
    assert curve.steps == [row["step"] for row in whole.curve] == [4, 8, 12]

    trainer = started(tmp_path)
    for step in range(6):
        trainer.advance(step)
    state = trainer.state()
    for process in trainer._processes:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match="died"):
        trainer.advance(6)
    with pytest.raises(RunError, match="have ended"):
        trainer.advance(6)
    with started(tmp_path) as again:
        again.load(state)
        for step in range(6, n):
            again.advance(step)
        found = again.result()
    assert found[1:] == whole[1:]
    assert all(torch.equal(found.tensors[name], whole.tensors[name]) for name in whole.tensors)
    assert {path.name for path in tmp_path.iterdir()} == {"shared_training.log"}


@pytest.mark.slow
def test_an_error_of_the_processes_comes_back_as_it_was_and_ends_them(tmp_path):
    trainer = started(tmp_path, learning_rate=1e30)
    trainer.advance(0)
    with pytest.raises(NumericsError, match="smaller learning_rate"):
        trainer.advance(1)
    assert all(process.poll() is not None for process in trainer._processes)
    with pytest.raises(RunError, match="TypeError"):
        started(tmp_path, unknown=1)


@pytest.mark.slow
def test_processes_end_when_nobody_holds_them(tmp_path):
    trainer = started(tmp_path)
    processes = trainer._processes
    # As when the parent is killed: nothing but the end of the pipe tells them.
    for process in processes:
        process.stdin.close()
    until = time.monotonic() + 60
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(0.05)
    assert [process.poll() for process in processes] == [0, 0]
    trainer.close()
