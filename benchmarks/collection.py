"""Collecting the latents of replies: what it adds to writing them, and its peak memory.

Time: replies with all layers encoded, pooled and kept, against the same replies alone, in the same
round; at most 1.6 times as long. An encoder costs `2 d_model d_sae` operations a token and layer,
so where dictionaries are wide the arithmetic itself has its price: it stands in the table (of the
tokens that are written; those of prompts are not encoded, and make the share smaller).

Memory: the whole step of the organism, on 1,000 and on 10,000 samples, in a process of its own
each, because the peak of a process never falls. At most 1.1 times as much.
    python -m benchmarks.collection [--rounds N] [--models organism,stories,pythia]
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import (
    Contender,
    Outcome,
    Timing,
    interleave,
    output_parser,
    pin_one_thread,
    publish,
)
from benchmarks.steered_models import ParityScorer, Steered, added_share, every
from fluoroscope.features.reply_latents import ReplyLatents
from fluoroscope.interventions.replies.answering import Asking, Captured, OnReply, Reply, reply_all
from fluoroscope.models.shape import ModelShape

N_SAMPLES, TIMES = 1000, 10
MORE_MEMORY, MORE_TIME = 1.10, 1.6
ALONE, COLLECTED = "replies alone", "replies and their latents"


def contenders(steered: Steered, n: int, n_new: int) -> list[Contender]:
    samples = steered.samples(n)
    asking = Asking(ParityScorer(), "texts", max_tokens=n_new)

    def alone() -> None:
        reply_all(steered.model, samples, asking)

    def collected() -> None:
        latents = ReplyLatents(steered.saes, ["max"], n)
        with tempfile.TemporaryDirectory() as folder:
            reply_all(steered.model, samples, asking, None, latents.captures, keep(latents))
            latents.save(Path(folder) / "latents.safetensors")

    return [Contender(ALONE, alone, n), Contender(COLLECTED, collected, n)]


def keep(latents: ReplyLatents) -> OnReply:
    def take(place: int, _reply: Reply, captured: Captured) -> None:
        latents.add(place, captured)

    return take


def measure(rounds: int, models: Sequence[Steered]) -> Outcome:
    rows: list[list[str]] = []
    timings: dict[str, Timing] = {}
    goals: dict[str, bool] = {}
    for steered in models:
        n, n_new = (256, 16) if steered.model.d_model < 512 else (32, 16)
        found = interleave(contenders(steered, n, n_new), rounds)
        times = [1 + share for share in added_share(found[COLLECTED], found[ALONE])]
        shown = f"{times[0]:.2f} ({times[1]:.2f} to {times[2]:.2f})"
        shape = ModelShape.from_network(steered.model.network)
        encoding = sum(2 * sae.d_model * sae.d_sae for sae in steered.saes.values())
        widths = sum(sae.d_sae for sae in steered.saes.values())
        note = f"{n} replies of {n_new} tokens, {widths:,} latents"
        arithmetic = f"{encoding / (2 * shape.n_multiplied):.2f}"
        for name, timing in found.items():
            is_alone = name == ALONE
            cells = ["", ""] if is_alone else [shown, arithmetic]
            rows.append([steered.name, name, f"{1e3 / timing.rate:.2f} ms a reply", *cells, note])
            timings[f"{steered.name}: {name}"] = timing
        goal = f"{steered.name}: at most {MORE_TIME} times the time, upper end {times[2]:.2f}"
        goals[goal] = times[2] <= MORE_TIME
    peaks = [_peak(n) for n in (N_SAMPLES, TIMES * N_SAMPLES)]
    growth = peaks[1] / peaks[0]
    for n, peak in zip((N_SAMPLES, TIMES * N_SAMPLES), peaks, strict=True):
        ratio = f"{peak / peaks[0]:.3f}"
        note = "resident set of a fresh process, shards of 256"
        rows.append(["organism", f"peak at {n:,} samples", f"{peak:,.0f} MiB", ratio, "", note])
    goals[f"{TIMES} times the samples, {growth:.3f} times the peak"] = growth <= MORE_MEMORY
    return Outcome(
        title="Collecting latents of replies",
        columns=["model", "way", "cost", "times (95 %)", "arithmetic of encoding", "note"],
        rows=rows,
        timings=timings,
        conditions={
            "arithmetic of encoding": "a token that is written, as a share of the model's",
            "intervals": "of the median over rounds, paired, by order statistics",
            "rounds": rounds,
        },
        goals=goals,
    )


def _peak(n_samples: int) -> float:
    """MiB."""
    command = [sys.executable, "-m", "benchmarks.collection", "--child", str(n_samples)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(found.splitlines()[-1])


def child(n_samples: int) -> float:
    """The whole step in this process; the peak in MiB."""
    import torch

    from benchmarks.steered_models import small_organism
    from fluoroscope.core.config import Config
    from fluoroscope.core.sink import SILENT
    from fluoroscope.data.tasks.base import TASKS
    from fluoroscope.runs.run import Run
    from fluoroscope.runs.step import ShardContext
    from fluoroscope.steps.collect import CollectStep
    from fluoroscope.steps.subject import resolve_subject
    from fluoroscope.steps.subject_spec import SubjectSpec
    from fluoroscope.steps.task_data import TaskData
    from fluoroscope.steps.task_spec import CollectSpec, TaskSpec

    torch.set_num_threads(1)
    spec = SubjectSpec.model_validate({"model": "organism", "saes": "organism:batch_topk"})
    samples = small_organism().samples(n_samples)
    asking = Asking(ParityScorer(), "texts", max_tokens=4)
    data = TaskData(TASKS.load("organism-bias"), asking, {"train": samples}, ())

    class Collect(CollectStep):
        def data(self, run: Run, device: str = "cpu") -> TaskData:
            return data

    step = Collect(resolve_subject(spec), TaskSpec(name="made up"), CollectSpec(), None, 0)
    with tempfile.TemporaryDirectory() as root:
        run, folder = Run(Path(root), "benchmark", Config()), Path(root) / "collect"
        for shard in step.shards(run):
            place = folder / "shards" / shard.key
            place.mkdir(parents=True)
            step.work(run, shard, ShardContext(place, SILENT, "cpu"))
        step.merge(run, folder, SILENT)
    # Linux gives KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if "--child" in sys.argv:
        sys.stdout.write(json.dumps(child(int(sys.argv[-1]))) + "\n")
    else:
        parser = output_parser()
        parser.add_argument("--rounds", type=int, default=25)
        parser.add_argument("--models", default="organism,stories,pythia")
        arguments = parser.parse_args()
        pin_one_thread()
        publish(measure(arguments.rounds, every(arguments.models)), arguments)
