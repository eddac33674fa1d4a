"""GPUs are shared by small trainings that fit on them together, and by nothing else."""

import pytest
from test_plan import Priced

from fluoroscope.core.errors import DoesNotFitError
from fluoroscope.runs import device_sharing
from fluoroscope.runs.device_sharing import with_workers, workers_a_gpu
from fluoroscope.runs.how import How
from fluoroscope.runs.plan import PROCESS_BYTES, TIGHT, check_fits
from fluoroscope.runs.step import Cost

SMALL = Cost(memory_bytes=1e9, parallel=18, shares_device=True)
ONE = 1e9 + PROCESS_BYTES
MANY = 64


def test_as_many_are_on_a_gpu_as_fit_have_work_and_have_cores():
    assert workers_a_gpu([SMALL], 1, 4.5 * ONE / TIGHT, MANY) == 4
    assert workers_a_gpu([SMALL], 1, 1000 * ONE, MANY) == 18
    assert workers_a_gpu([SMALL], 4, 1000 * ONE, MANY) == 5
    assert workers_a_gpu([SMALL], 1, 1000 * ONE, 3) == 3
    assert workers_a_gpu([SMALL], 1, 0.5 * ONE, MANY) == 1
    assert workers_a_gpu([SMALL], 8, 1000 * ONE, 0) == 1


def test_the_largest_of_steps_that_share_decides():
    large = Cost(memory_bytes=3e9, parallel=2, shares_device=True)
    free = 2.5 * (3e9 + PROCESS_BYTES) / TIGHT
    assert workers_a_gpu([SMALL, large], 1, free, MANY) == 2


def test_a_step_that_does_not_share_has_its_gpus_for_itself_unless_it_is_one_shard():
    alone = Cost(memory_bytes=1e9, parallel=2)
    assert workers_a_gpu([SMALL, alone], 1, 1000 * ONE, MANY) == 1
    one_shard = Cost(memory_bytes=1e9, parallel=1)
    assert workers_a_gpu([SMALL, one_shard], 1, 1000 * ONE, MANY) == 18
    assert workers_a_gpu([one_shard], 1, 1000 * ONE, MANY) == 1
    assert workers_a_gpu([], 1, 1000 * ONE, MANY) == 1


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(device_sharing, "worker_devices", lambda how, threads: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(device_sharing, "free_gpu_bytes", lambda devices: 3.5 * ONE / TIGHT)
    monkeypatch.setattr(device_sharing, "usable_cores", lambda: MANY)


def test_workers_are_counted_for_processes_when_nobody_gave_a_number(two_gpus, tmp_path):
    steps = [Priced("train", SMALL)]
    assert with_workers(How(executor="processes"), steps, tmp_path, 1).workers == 6
    for how in (How(executor="processes", workers=2), How(), How(executor="ray")):
        assert with_workers(how, steps, tmp_path, 1) == how
    # Each has its threads: of 64 cores 32 a GPU, which is two workers of 16.
    assert with_workers(How(executor="processes"), steps, tmp_path, 16).workers == 4
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "done.json").write_text("{}")
    assert with_workers(How(executor="processes"), steps, tmp_path, 1).workers is None


def test_without_a_gpu_the_number_is_that_of_cores(tmp_path):
    how = How(executor="processes", devices="cpu")
    assert with_workers(how, [Priced("train", SMALL)], tmp_path, 1) == how


def test_a_gpu_that_workers_share_must_hold_them_all(tmp_path):
    steps = [Priced("train", Cost(memory_bytes=1e9, parallel=9))]
    check_fits(steps, tmp_path, workers=4, gpu_bytes=2.5e9, n_gpus=2)
    check_fits(steps, tmp_path, workers=4, gpu_bytes=1.5e9)
    with pytest.raises(DoesNotFitError, match=r"needs up to 4 GB of memory \(4 shards"):
        check_fits(steps, tmp_path, workers=4, gpu_bytes=2.5e9, n_gpus=1)
