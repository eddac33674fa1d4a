"""What was read of the answers -> tracks through the layers, and what they are like (`track/`).

track/metrics.parquet                  a row a position of an answer: the metrics of its tracks
track/shards/<k>/tracks.parquet        a row a point of a track: who, where, how strong
track/shards/<k>/metrics.parquet       the rows of some answers
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import read_tensors
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.metrics.describe import METRICS, metrics
from fluoroscope.studies.hallucination.settings import TrackingSettings
from fluoroscope.studies.hallucination.signals.reading import Readings
from fluoroscope.studies.hallucination.steps.associate import (
    ASSOCIATE,
    detections_at,
    read_link_model,
)
from fluoroscope.studies.hallucination.steps.read import READ, READABLE, READINGS, unpacked
from fluoroscope.studies.hallucination.tracking.detections import Detections
from fluoroscope.studies.hallucination.tracking.links import Links
from fluoroscope.studies.hallucination.tracking.mht import MHT
from fluoroscope.studies.hallucination.tracking.seed_cost import SeedCost
from fluoroscope.studies.hallucination.tracking.trackers import TRACKERS, Tracker
from fluoroscope.studies.hallucination.tracking.tracks import TrackSet

TRACK = "track"
METRICS_FILE, TRACKS = "metrics.parquet", "tracks.parquet"
SECONDS_A_TOKEN: Mapping[str, float] = {"mht": 0.02, "jpda": 0.01, "optimum": 0.02}
"""Of 24 layers with 50 detections; the others take less than 5 ms."""

_POINTS = {
    "id": pl.String,
    "position": pl.Int32,
    "track": pl.Int32,
    "layer": pl.Int32,
    "latent": pl.Int32,
    "activation": pl.Float64,
    "strength": pl.Float64,
    "existence": pl.Float64,
    "parent": pl.Int32,
}


class TrackStep(MapStep):
    """A shard for each of what was read."""

    name = TRACK

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), READ, ASSOCIATE)

    def cost(self) -> Cost:
        n = self.config.size.answers
        positions = float(n * (self.config.answers.max_tokens + 1))
        share = len(self.config.points) / 24
        seconds = 0.005 + SECONDS_A_TOKEN.get(self.config.tracking.tracker, 0.005)
        return Cost(
            overhead_s=positions * share * seconds,
            memory_bytes=1e9,
            disk_bytes=positions * (8.0 * len(METRICS) + 40.0 * 20 * len(self.config.points)),
            parallel=max(1, n // self.config.read.answers_per_shard),
            note=f"{self.config.tracking.tracker}, a token at a time",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(place.name) for place in _places(run)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        source = run.step_folder(READ) / "shards" / shard.key
        answers = pl.read_parquet(source / READABLE)
        readings = unpacked(read_tensors(source / READINGS))
        rows: list[dict[str, object]] = []
        points: list[pl.DataFrame] = []
        for number, answer in enumerate(answers.iter_rows(named=True)):
            for found in self._tracked(run, readings, number):
                about = {"id": answer["id"], "position": found.position}
                values = metrics(found.links, found.tracks, found.detections.activations)
                rows.append({**about, **values})
                points.append(track_points(found.detections, found.tracks, about))
            context.sink.progress(number + 1, len(answers), "answers")
        schema = {"id": pl.String, "position": pl.Int32} | dict.fromkeys(METRICS, pl.Float64)
        write_parquet(context.folder / METRICS_FILE, pl.DataFrame(rows, schema=schema))
        empty = pl.DataFrame(schema=_POINTS)
        write_parquet(context.folder / TRACKS, pl.concat([empty, *points]))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        keys = [shard.key for shard in self.shards(run)]
        parts = [pl.read_parquet(folder / "shards" / key / METRICS_FILE) for key in keys]
        write_parquet(folder / METRICS_FILE, pl.concat(parts))

    def _tracked(self, run: Run, readings: Readings, answer: int) -> "Iterator[_Tracked]":
        model, scales = read_link_model(run)
        tracker = make_tracker(self.config.tracking)
        start = int(readings.offsets[answer]) + answer
        stop = int(readings.offsets[answer + 1]) + answer + 1
        for row in range(start, stop):
            detections = detections_at(
                readings, self.config.points, row, scales, self.config.tracking.top
            )
            links = model.links(detections)
            # The first position draws the answer's first token, and is before all of them.
            yield _Tracked(row - start - 1, detections, links, tracker.track(links))


class _Tracked(NamedTuple):
    """One position of an answer."""

    position: int
    detections: Detections
    links: Links
    tracks: TrackSet


def make_tracker(settings: TrackingSettings) -> Tracker:
    kind = TRACKERS.load(settings.tracker)
    if kind is MHT:
        return MHT(settings.hypotheses, settings.n_scan)
    return SeedCost(settings.seed_cost) if kind is SeedCost else kind()


def track_points(
    detections: Detections, tracks: TrackSet, about: Mapping[str, object]
) -> pl.DataFrame:
    """A row a point, by track and layer; what is in no track is left out."""
    numbers = np.repeat(np.arange(len(tracks), dtype=np.int32), np.diff(tracks.offsets))
    at = tracks.points
    return pl.DataFrame(
        {
            "track": numbers,
            "layer": detections.layers[at],
            "latent": detections.latents[at],
            "activation": detections.activations[at],
            "strength": detections.strengths[at],
            "existence": tracks.existence[numbers],
            "parent": tracks.parents[numbers],
        }
    ).select(
        *(pl.lit(value).cast(_POINTS[name]).alias(name) for name, value in about.items()),
        pl.all(),
    )


def _places(run: Run) -> list[Path]:
    return sorted((run.step_folder(READ) / "shards").iterdir())
