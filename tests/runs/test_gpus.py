"""Which GPU a run takes where the choice is its own, by a driver's tool that is made up."""

import pytest
import torch

from fluoroscope.runs.gpus import gpu_use, least_used_first
from fluoroscope.runs.how import How
from fluoroscope.runs.process import worker_devices

USED = {"GPU-aaaa-1": 9000, "GPU-aabb-2": 10, "GPU-cccc-3": 500}
THREE = ["cuda:0", "cuda:1", "cuda:2"]


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """nvidia-smi of three GPUs that others use more or less; nothing else is on the PATH."""

    def put(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)

    lines = "\n".join(f"{i}, {uuid}, {mib}" for i, (uuid, mib) in enumerate(USED.items()))
    put(f"echo '{lines}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    return put


def test_gpus_that_others_use_least_come_first(driver):
    assert least_used_first(THREE) == ["cuda:1", "cuda:2", "cuda:0"]
    assert least_used_first(["cuda:0", "cuda:2"]) == ["cuda:2", "cuda:0"]


@pytest.mark.parametrize(
    ("visible", "order"),
    [
        ("2,0", ["cuda:0", "cuda:1"]),
        ("0,2", ["cuda:1", "cuda:0"]),
        ("GPU-aaaa-1,GPU-cccc-3", ["cuda:1", "cuda:0"]),
        ("GPU-aaa,GPU-c", ["cuda:1", "cuda:0"]),
    ],
)
def test_numbers_are_those_of_the_visible_gpus(driver, monkeypatch, visible, order):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert least_used_first(["cuda:0", "cuda:1"]) == order


@pytest.mark.parametrize("visible", ["MIG-aaaa,MIG-bbbb", "GPU-a,GPU-aa", "7,1", "", "0"])
def test_what_the_driver_does_not_list_leaves_the_order(driver, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert least_used_first(["cuda:0", "cuda:1"]) == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense", "echo '0, GPU-a, [N/A]'"])
def test_a_driver_that_says_nothing_of_use_leaves_the_order(driver, script):
    driver(script)
    assert least_used_first(THREE) == THREE


def test_no_driver_leaves_the_order_and_lists_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert least_used_first(THREE) == THREE
    assert gpu_use() == []


def test_one_device_asks_nobody(driver, tmp_path):
    driver(f"touch {tmp_path}/asked; exit 1")
    assert least_used_first(["cpu"]) == ["cpu"]
    assert not (tmp_path / "asked").exists()


def test_a_run_takes_the_least_used_unless_devices_are_named(driver):
    assert worker_devices(How(), 1) == ["cuda:1"]
    two = How(executor="processes", workers=2)
    assert worker_devices(two, 1) == ["cuda:1", "cuda:2"]
    named = How(executor="processes", workers=2, devices="cuda:0,cuda:2")
    assert worker_devices(named, 1) == ["cuda:0", "cuda:2"]
    every = How(executor="processes")
    assert sorted(worker_devices(every, 1)) == THREE
