"""Peak memory of shards, as the event log has it."""

from fluoroscope.runs.events import EventLog
from fluoroscope.runs.usage import ShardPeak, shard_peaks, step_usage


def finished(log, shard, device, rss, gpu, step="train"):
    log.append(
        "shard finished",
        step=step,
        shard=shard,
        device=device,
        peak_rss_bytes=rss,
        peak_gpu_bytes=gpu,
    )


def test_a_shard_is_measured_where_it_was_worked_on_the_last_time(tmp_path):
    log = EventLog(tmp_path)
    log.append("step started", step="train")
    finished(log, "on a GPU", "cuda:0", rss=9, gpu=5)
    # Of a process that had used its GPU for something else.
    finished(log, "beside a GPU", "cpu", rss=6, gpu=20)
    finished(log, "twice", "cpu", rss=8, gpu=None)
    finished(log, "twice", "cpu", rss=7, gpu=None)
    finished(log, "other", "cpu", rss=30, gpu=None, step="questions")
    log.append("shard finished", step="train", shard="not measured", device="cpu")
    log.append("step finished", step="train", disk_bytes=0)
    assert shard_peaks(tmp_path, "train") == {
        "on a GPU": ShardPeak(5, "cuda:0"),
        "beside a GPU": ShardPeak(6, "cpu"),
        "twice": ShardPeak(7, "cpu"),
    }
    assert step_usage(tmp_path).filter(step="train")["peak_bytes"].to_list() == [8]
