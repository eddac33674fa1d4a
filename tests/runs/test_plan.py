"""Plans are rooflines that can be checked by hand, and what cannot fit does not start."""

from pathlib import Path

import pytest
from toy_runs import run_toy
from toy_study import ToySpec, ToyStudy

from fluoroscope.core.errors import ConfigError, DoesNotFitError
from fluoroscope.runs.hardware import DEVICES, Device, parse_devices
from fluoroscope.runs.how import How
from fluoroscope.runs.plan import PROCESS_BYTES, check_fits, plan, status, step_seconds
from fluoroscope.runs.step import Cost, MapStep, Shard
from fluoroscope.runs.usage import used_vs_planned

SLIDE_RULE = Device("slide-rule", 200.0, 100.0, 10.0, 1e9 + PROCESS_BYTES, efficiency=0.5)


class Priced(MapStep):
    def __init__(self, name: str, cost: Cost) -> None:
        self.name = name
        self._cost = cost

    def cost(self) -> Cost:
        return self._cost

    def shards(self, run) -> list[Shard]:
        return []

    def work(self, run, shard, context) -> None: ...


def test_time_is_the_slower_of_arithmetic_and_traffic() -> None:
    assert step_seconds(Cost(flops=500), SLIDE_RULE) == 10.0
    assert step_seconds(Cost(half_flops=500), SLIDE_RULE) == 5.0
    assert step_seconds(Cost(flops=500, bytes_moved=500), SLIDE_RULE) == 50.0


def test_overhead_comes_on_top_and_is_shared_too() -> None:
    two = Device(**{**vars(SLIDE_RULE), "count": 2})
    assert step_seconds(Cost(flops=500, overhead_s=4, parallel=2), two) == 7.0


def test_shards_share_the_devices_as_far_as_there_are_both() -> None:
    four = Device(**{**vars(SLIDE_RULE), "count": 4})
    assert step_seconds(Cost(flops=600, parallel=3), four) == 4.0
    assert step_seconds(Cost(flops=600, parallel=9), four) == 3.0
    assert step_seconds(Cost(flops=600, parallel=1), four) == 12.0


def test_a_plan_has_a_row_for_each_step_and_their_total() -> None:
    a = Cost(flops=500, memory_bytes=5e8, disk_bytes=7)
    b = Cost(flops=500, bytes_moved=500, memory_bytes=9e8, disk_bytes=3)
    steps = [Priced("a", a), Priced("b", b)]
    frame = plan(steps, [SLIDE_RULE])
    assert frame["step"].to_list() == ["a", "b", "total"]
    assert frame["time_s"].to_list() == [10.0, 50.0, 60.0]
    assert frame["disk_bytes"].to_list() == [7, 3, 10]
    assert frame["status"].to_list() == ["safe", "tight", "tight"]
    assert frame["headroom_bytes"].to_list() == [5e8, 1e8, 1e8]


def test_status_says_whether_it_fits() -> None:
    assert [status(n, 100) for n in (10, 90, 101)] == ["safe", "tight", "does not fit"]


def test_several_devices_are_counted_and_written_as_people_write_them() -> None:
    assert parse_devices("4xA100-80GB") == Device(**{**vars(DEVICES["A100-80GB"]), "count": 4})
    assert parse_devices("rtx4090").name == "RTX4090-24GB"
    assert parse_devices("2 x l4").count == 2


def test_a_device_that_is_not_in_the_table_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"'A100' is not in the table.*A100-80GB.*this machine"):
        parse_devices("4xA100")


def test_a_run_that_the_disk_cannot_hold_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"needs up to 1e\+06 TB of disk \(a 1e\+06 TB\)"):
        check_fits([Priced("a", Cost(disk_bytes=1e18))], tmp_path)


def test_a_run_that_memory_cannot_hold_does_not_start(tmp_path: Path) -> None:
    steps = [Priced("a", Cost(memory_bytes=1e15, parallel=2))]
    with pytest.raises(DoesNotFitError, match=r"needs up to 2e\+03 TB of memory \(2 shards"):
        check_fits(steps, tmp_path, workers=4)
    with pytest.raises(DoesNotFitError, match="1e\\+03 TB of memory"):
        check_fits(steps, tmp_path, workers=4, gpu_bytes=80e9)
    check_fits(steps, tmp_path, workers=0)


def test_what_is_done_needs_no_room(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "done.json").write_text("{}")
    check_fits([Priced("a", Cost(disk_bytes=1e18, memory_bytes=1e15))], tmp_path)


def test_nothing_is_left_of_a_run_that_did_not_fit_but_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toy_study.Numbers.cost", lambda _: Cost(disk_bytes=1e18))
    with pytest.raises(DoesNotFitError, match="--no-check-fit"):
        run_toy(tmp_path)
    assert not (tmp_path / "toy" / "numbers").exists()
    run_toy(tmp_path, how=How(check_fit=False))


def test_the_estimate_stands_beside_what_was_used(tmp_path: Path) -> None:
    run = run_toy(tmp_path, flops=1e6)
    frame = used_vs_planned(run.folder)
    assert frame["step"].to_list() == ["numbers", "walks"]
    numbers = frame.row(0, named=True)
    assert 0 < numbers["planned_s"] < numbers["used_s"]
    assert 0 < numbers["used_disk_bytes"] < numbers["planned_disk_bytes"] == 1e6
    assert numbers["used_memory_bytes"] > 1e7


def test_this_machine_is_measured() -> None:
    here = parse_devices("cpu")
    assert here.is_measured
    assert here.flops("float32") > 1e8
    assert here.bytes_per_s > 1e8
    frame = plan(ToyStudy().steps(ToyStudy().resolve(ToySpec())), [here])
    assert frame["used_by_others_bytes"].min() > 0
