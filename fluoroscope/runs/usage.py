"""What a run has used so far, read off its event log, and beside it what had been planned."""

from pathlib import Path
from typing import NamedTuple

import polars

from fluoroscope.runs.events import Event, read_events
from fluoroscope.runs.record import read_record


def used_vs_planned(folder: Path) -> polars.DataFrame:
    """A row for every step of a run: what was estimated, beside what was used.

    Times are as on the devices of the run's first start; None where nothing was estimated.
    """
    planned = {event["step"]: event for event in read_events(folder, "planned")}
    used = {row["step"]: row for row in step_usage(folder).to_dicts()}
    rows = [
        {
            "step": step.name,
            "planned_s": planned.get(step.name, {}).get("seconds"),
            "used_s": used.get(step.name, {}).get("seconds"),
            "planned_memory_bytes": planned.get(step.name, {}).get("memory_bytes"),
            "used_memory_bytes": used.get(step.name, {}).get("peak_bytes"),
            "planned_disk_bytes": step.cost.get("disk_bytes"),
            "used_disk_bytes": used.get(step.name, {}).get("disk_bytes"),
        }
        for step in read_record(folder).steps
    ]
    names = ("s", "memory_bytes", "disk_bytes")
    columns = [f"{kind}_{name}" for name in names for kind in ("planned", "used")]
    schema = {"step": polars.String, **dict.fromkeys(columns, polars.Float64)}
    return polars.DataFrame(rows, schema=schema)


def step_usage(folder: Path) -> polars.DataFrame:
    """Wall time over all starts, peak memory of a shard, and disk of each step."""
    seconds: dict[str, float] = {}
    peak: dict[str, float] = {}
    disk: dict[str, float] = {}
    began: tuple[str, float] | None = None
    latest = 0.0
    for event in read_events(folder):
        step = event.get("step")
        if event["event"] in ("run started", "step started") and began:
            # The start before was killed in the middle of a step; count it to its last word.
            seconds[began[0]] = seconds.get(began[0], 0.0) + latest - began[1]
            began = None
        if event["event"] == "step started":
            began = (event["step"], event["time"])
        if event["event"] == "step finished" and began:
            seconds[event["step"]] = seconds.get(event["step"], 0.0) + event["time"] - began[1]
            disk[event["step"]] = event["disk_bytes"]
            began = None
        if event["event"] == "shard finished" and step is not None:
            peak[step] = max(peak.get(step, 0.0), _peak_bytes(event))
        latest = event["time"]
    rows = [(name, seconds[name], peak.get(name), disk.get(name)) for name in seconds]
    columns = ("seconds", "peak_bytes", "disk_bytes")
    schema = {"step": polars.String, **dict.fromkeys(columns, polars.Float64)}
    return polars.DataFrame(rows, schema=schema, orient="row")


class ShardPeak(NamedTuple):
    bytes: int
    """On a GPU of its tensors there (`torch.cuda.max_memory_allocated`), on a CPU of the whole
    process (its resident set)."""

    device: str


def shard_peaks(folder: Path, step: str) -> dict[str, ShardPeak]:
    """Peak memory by shard, each since it was last begun or gone on with; without those that
    nobody has measured.
    """
    return {
        event["shard"]: ShardPeak(used, event["device"])
        for event in read_events(folder, "shard finished")
        if event["step"] == step and (used := _peak_bytes(event))
    }


def _peak_bytes(event: Event) -> int:
    # A process that had used its GPU before may have worked on this shard without it.
    on_gpu = None if event.get("device") == "cpu" else event.get("peak_gpu_bytes")
    return on_gpu or event.get("peak_rss_bytes") or 0
