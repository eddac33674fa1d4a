"""Scenes whose tracks are known -> which tracker finds them (`validate_tracker/`).

validate_tracker/trackers.parquet     a row a tracker and difficulty: GOSPA, identity switches
validate_tracker/pairs.parquet        a row a pair and difficulty: by how much one leads the other
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.settings import TrackingSettings
from fluoroscope.studies.hallucination.steps.track import make_tracker
from fluoroscope.studies.hallucination.tracking.detections import Detections
from fluoroscope.studies.hallucination.tracking.seed_cost import SeedCost, cost_links
from fluoroscope.studies.hallucination.tracking.synthetic import WORLDS, Scene
from fluoroscope.studies.hallucination.tracking.trackers import SEED_COST, Tracker
from fluoroscope.studies.hallucination.tracking.tracks import TrackSet
from fluoroscope.studies.hallucination.tracking.validation import (
    Tracking,
    compared,
    on_links,
    scene_scores,
    summarised,
)

VALIDATE = "validate_tracker"
TABLE, PAIRS = "trackers.parquet", "pairs.parquet"
COMPARED = ("optimum", "mht", "jpda", "nearest", "greedy", SEED_COST)
"""From the one that should be best to the one that should be worst."""

CLAIMS = (("mht", "nearest"), ("nearest", "greedy"))
"""The first must beat the second: several hypotheses one, a layer at once its links one by one."""

SECONDS_A_SCENE = 0.3


class ValidateTrackerStep(MapStep):
    """A shard a difficulty; all trackers see the same scenes."""

    name = VALIDATE

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        n = len(WORLDS) * self.config.validation.scenes
        return Cost(overhead_s=n * SECONDS_A_SCENE + 20.0, parallel=len(WORLDS))

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(name) for name in WORLDS]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        tracking = self.config.tracking
        trackers = {
            name: _on_scenes(make_tracker(tracking.model_copy(update={"tracker": name})), tracking)
            for name in COMPARED
        }
        seeds = [
            derive_seed(self.config.seed, "scene", shard.key, number)
            for number in range(self.config.validation.scenes)
        ]
        scenes = scene_scores(trackers, {shard.key: WORLDS[shard.key]}, seeds)
        write_parquet(context.folder / TABLE, summarised(scenes))
        pairs = dict.fromkeys([*CLAIMS, *pairwise(COMPARED)])
        write_parquet(context.folder / PAIRS, compared(scenes, list(pairs)))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        for name in (TABLE, PAIRS):
            files = [folder / "shards" / shard.key / name for shard in self.shards(run)]
            write_parquet(folder / name, pl.concat([pl.read_parquet(file) for file in files]))


def _on_scenes(tracker: Tracker, settings: TrackingSettings) -> Tracking:
    """All trackers get the links of a scene; the original's makes its own of the same
    detections, and has no latent that would go on by its number.
    """
    if not isinstance(tracker, SeedCost):
        return on_links(tracker.track)

    def tracked(scene: Scene) -> TrackSet:
        links = scene.links
        latents = np.arange(len(links), dtype=np.int32)
        found = Detections(links.layers, latents, links.strengths, links.strengths)
        costs = cost_links(found, scene.directions, links.n_layers, settings.seed_cost)
        return tracker.track(costs)

    return tracked
