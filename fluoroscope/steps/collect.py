"""The training side of a task, replied to once (`collect/`), with the latents of all layers.

collect/replies.parquet           a row a sample: see `replies_table.py`
collect/latents-<pool>.parquet    a row a latent: `features.correlation_selection.latent_table`
collect/null-<pool>.parquet       the largest |r| of each shuffle, by hook point and over all
collect/stability-<pool>.parquet  how often resamples pick the same latent, by `sign` of r
collect/shards/<k>/latents.safetensors   pooled latents as sparse rows, dense activations

Outcomes are known once all replies are, and shuffles need all outcomes; so a shard keeps the
active latents of its samples on disk, and the merge adds them shard by shard. Memory does not
grow with the number of samples, and the model runs once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.features.correlation import OutcomeMoments
from fluoroscope.features.correlation_nulls import Sign, is_tested, null_maxima, pick_stability
from fluoroscope.features.correlation_outcomes import Outcomes
from fluoroscope.features.correlation_pooling import Pooling
from fluoroscope.features.correlation_selection import latent_table
from fluoroscope.features.reply_latents import ReplyLatents, load_dense, load_rows
from fluoroscope.interventions.replies.answering import Captured, Reply, reply_all
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.replies_table import replies_frame, scores
from fluoroscope.steps.subject import Subject, load_layers, sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_data import TaskData, load_task
from fluoroscope.steps.task_spec import CollectSpec, TaskSpec

COLLECT = "collect"
REPLIES, LATENTS = "replies.parquet", "latents.safetensors"
_ACTIVE_SHARE = 0.02
"""Of the latents are active in some token of a reply, as a plan reckons."""


class CollectStep(MapStep):
    name = COLLECT

    def __init__(
        self,
        subject: Subject,
        task: TaskSpec,
        collect: CollectSpec,
        data_dir: str | None,
        seed: int,
    ) -> None:
        self.subject, self.task, self.collect = subject, task, collect
        self.data_dir, self.seed = data_dir, seed
        self.inputs = sae_inputs(subject)

    def cost(self) -> Cost:
        d_sae, n_points = sum(self.subject.widths), len(self.subject.points)
        n_pools = len(self.collect.pools)
        encoding = 2.0 * self.subject.shape.d_model * d_sae
        held = 8.0 * d_sae * n_pools * (self.collect.shuffles + 15 + 3 * self.collect.resamples)
        row = 8.0 * _ACTIVE_SHARE * d_sae * n_pools + 4.0 * self.subject.shape.d_model * n_points
        return task_cost(
            self.subject, self.task, 1, extra_flops=encoding, extra_memory=held, disk_row=row
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        n, size = len(self.data(run).sides["train"]), self.collect.samples_per_shard
        return [
            Shard(f"{start:06d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.subject.model, context.device)
        saes = load_layers(run, self.subject, context.device, model.identity)
        data = self.data(run, context.device)
        samples = data.sides["train"][shard.params["from"] : shard.params["to"]]
        latents = ReplyLatents(saes, self.collect.pools, len(samples))
        n_done = 0

        def take(place: int, _reply: Reply, captured: Captured) -> None:
            nonlocal n_done
            latents.add(place, captured)
            n_done += 1
            context.sink.progress(n_done, len(samples), "samples")

        replies = reply_all(model, samples, data.asking, None, latents.captures, take)
        write_parquet(context.folder / REPLIES, replies_frame(samples, replies))
        latents.save(context.folder / LATENTS)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        shards = [folder / "shards" / shard.key for shard in self.shards(run)]
        replies = pl.concat([pl.read_parquet(shard / REPLIES) for shard in shards])
        write_parquet(folder / REPLIES, replies)
        if replies["group"].n_unique() < 2:
            raise ConfigError(
                f"All {len(replies)} training samples of {self.task.name} are of one group, and "
                "groups are what is compared: take more (task.limit)."
            )
        check_varies(self.task.name, scores(replies))
        collected = Collected(folder, self.subject, self.collect, self.seed)
        for pool in self.collect.pools:
            found = collected.moments(pool)
            write_parquet(folder / f"latents-{pool}.parquet", collected.described(found))
            null = null_maxima(found, self.collect.min_active)
            write_parquet(folder / f"null-{pool}.parquet", null)
            write_parquet(folder / f"stability-{pool}.parquet", self._stability(found))
        mean = float(scores(replies).mean())
        sink.message(f"{len(replies)} samples, mean score {mean:.3f}.")

    def _stability(self, found: Mapping[str, OutcomeMoments]) -> pl.DataFrame:
        """Of the hook points at which anything can be picked."""
        least = self.collect.min_active
        able = {point: one for point, one in found.items() if is_tested(one, least).any()}
        signs: tuple[Sign, ...] = get_args(Sign) if able else ()
        parts = [
            pick_stability(able, least, sign).with_columns(sign=pl.lit(sign)) for sign in signs
        ]
        schema = {
            "hook_point": pl.String,
            "latent": pl.Int64,
            "share": pl.Float64,
            "share_overall": pl.Float64,
            "sign": pl.String,
        }
        return pl.concat([pl.DataFrame(schema=schema), *parts])

    def data(self, run: Run, device: str = "cpu") -> TaskData:
        return load_task(run, self.subject.model, self.task, self.data_dir, self.seed, device)


class Collected:
    """What the step left, and what follows of any part of it."""

    def __init__(self, folder: Path, subject: Subject, collect: CollectSpec, seed: int) -> None:
        self._subject, self._collect, self._seed = subject, collect, seed
        self._shards = sorted((folder / "shards").iterdir())
        self.replies = pl.read_parquet(folder / REPLIES)
        """A row a training sample, in the order that the seed gives them."""

        values = scores(self.replies)
        self.threshold = float(values.mean()) if collect.success is None else collect.success
        """Scores from it on are successes."""

    def outcomes(self, samples: int | None = None) -> Outcomes:
        part = self.replies.head(samples or len(self.replies))
        return Outcomes(
            scores(part),
            part["group"].to_numpy(),
            self.threshold,
            self._collect.shuffles,
            self._collect.resamples,
            self._seed,
        )

    def moments(
        self, pool: Pooling, samples: int | None = None, outcomes: Outcomes | None = None
    ) -> dict[str, OutcomeMoments]:
        """By hook point, of the first samples, with their own outcomes or with others."""
        if pool not in self._collect.pools:
            raise ConfigError(
                f"Latents pooled by {pool} were not collected: add it to collect.pools, which is "
                f"{self._collect.pools}."
            )
        outcomes = outcomes or self.outcomes(samples)
        found = {}
        for point, width in zip(self._subject.points, self._subject.widths, strict=True):
            moments = OutcomeMoments(width, outcomes)
            start = 0
            for shard in self._shards:
                if start >= len(outcomes):
                    break
                rows = load_rows(shard / LATENTS, str(point), pool, width)[: len(outcomes) - start]
                moments.add(np.arange(start, start + rows.shape[0]), rows)
                start += rows.shape[0]
            found[str(point)] = moments
        return found

    def described(self, found: dict[str, OutcomeMoments]) -> pl.DataFrame:
        """A row a latent."""
        return latent_table(found, self._collect.min_active, self._collect.alpha)

    def table(self, pool: Pooling, samples: int | None = None) -> pl.DataFrame:
        """A row a latent, of the first samples."""
        return self.described(self.moments(pool, samples))

    def dense(self, point: str, samples: int | None = None) -> Float[np.ndarray, "n d_model"]:
        rows = [load_dense(shard / LATENTS, point) for shard in self._shards]
        return np.concatenate(rows)[: samples or len(self.replies)]


def check_varies(task: str, values: Float[np.ndarray, " n"]) -> None:
    """Refuses outcomes that nothing can go along with."""
    if values.min() == values.max():
        raise ConfigError(
            f"The model's score on {task} is {values[0]:g} in all {len(values)} training samples, "
            "so nothing can go along with it: take a task that is neither always solved nor never "
            "(or another way of judging it: task.way), or more samples."
        )
