"""The event log and the progress files survive what happens to files."""

import io
import json
import math
import time
from pathlib import Path

from rich.console import Console

from fluoroscope.runs.events import EventLog, EventTail, read_events, read_metrics
from fluoroscope.runs.progress import RunSink, ShardProgress, read_progress
from fluoroscope.runs.terminal import Terminal, describe, duration, event_text, size


def test_a_torn_line_hides_no_other(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append("first")
    with log.path.open("ab") as file:
        file.write(b'{"event": "torn by a ki')
    assert [event["event"] for event in read_events(tmp_path)] == ["first"]
    log.mend()
    log.append("second")
    assert [event["event"] for event in read_events(tmp_path)] == ["first", "second"]


def test_every_line_is_json_though_numbers_are_not(tmp_path: Path) -> None:
    EventLog(tmp_path).append("metrics", values={"loss": math.nan, "norm": [math.inf, 1.0]})
    line = json.loads((tmp_path / "events.jsonl").read_text(), parse_constant=lambda _: 1 / 0)
    assert line["values"] == {"loss": None, "norm": [None, 1.0]}


def test_metrics_of_a_resumed_loop_count_once_and_the_latest_holds(tmp_path: Path) -> None:
    for values in ((0, 1.0), (1, 2.0), (1, 3.0), (2, 4.0)):
        RunSink(tmp_path, "train", "all").metrics(values[0], {"loss": values[1]})
    RunSink(tmp_path, "other", "all").metrics(0, {"loss": 9.0})
    curve = [(e["iteration"], e["values"]["loss"]) for e in read_metrics(tmp_path, "train")]
    assert curve == [(0, 1.0), (1, 3.0), (2, 4.0)]


def test_a_tail_gives_each_event_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append("before")
    tail = EventTail(tmp_path)
    log.append("after")
    with log.path.open("ab") as file:
        file.write(b'{"event": "ha')
        file.flush()
        assert [event["event"] for event in tail.new()] == ["after"]
        file.write(b'lf", "time": 1.0}\n')
    assert [event["event"] for event in tail.new()] == ["half"]
    assert tail.new() == []


def test_progress_is_seen_by_others_and_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    RunSink(tmp_path, "train", "all", every_s=0).progress(3, 10, "batches")
    (tmp_path / "progress" / "train" / "other.json").write_text("{")
    (seen,) = read_progress(tmp_path)
    assert (seen.step, seen.shard, seen.done, seen.total, seen.unit) == (
        *("train", "all", 3, 10),
        "batches",
    )


def test_rate_and_time_left_count_what_this_process_did() -> None:
    resumed = ShardProgress("train", "all", 60, 100, "batches", 50, 5.0, 0.0)
    assert resumed.rate == 2.0
    assert resumed.left_s == 20.0
    assert describe(resumed) == "60/100 batches, 2/s, 20 s left"
    begun = ShardProgress("train", "all", 0, 100, "batches", 0, 5.0, 0.0)
    assert begun.left_s is None
    assert describe(begun) == "0/100 batches"


def test_a_step_of_many_shards_shows_a_rate_and_a_time_left(tmp_path: Path) -> None:
    said = io.StringIO()
    with Terminal(tmp_path, Console(file=said, width=100), line_every_s=0.0):
        began = {"event": "step started", "time": 100.0, "step": "a", "n_done": 2, "n_shards": 12}
        ends = [{"event": "shard finished", "time": t, "step": "a"} for t in (101.0, 104.0)]
        lines = [json.dumps(event) + "\n" for event in (began, *ends)]
        (tmp_path / "events.jsonl").write_text("".join(lines))
        until = time.monotonic() + 10
        while "left" not in said.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    assert "a: 4/12 shards, 0.5/s, 16 s left" in said.getvalue()


def test_units_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.41, 59.4, 61, 7260)] == [
        *("0.4 s", "59 s", "1 min 01 s"),
        "2 h 01 min",
    ]
    assert [size(n) for n in (12, 3_400, 1.5e9, 2e12)] == ["12 B", "3.4 kB", "1.5 GB", "2 TB"]


def test_a_failure_is_told_and_a_metric_is_not() -> None:
    failed = {"event": "shard failed", "step": "a", "shard": "b", "attempt": 1, "error": "no"}
    assert event_text(failed) == "a/b: attempt 1 failed: no"
    assert event_text({"event": "metrics", "step": "a", "shard": "b"}) is None
